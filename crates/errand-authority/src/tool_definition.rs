//! The definition of a tool, as an MCP server lists it.

use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::{
    digest::ToolDigest,
    encoding::{jcs, strict_json},
    id::{NameError, ToolName},
};

/// The largest description of a tool, in bytes.
pub const MAX_DESCRIPTION_BYTES: usize = 16 * 1024;
/// The largest input schema of a tool, in bytes of its canonical JSON.
pub const MAX_SCHEMA_BYTES: usize = 32 * 1024;
/// The deepest nesting of an input schema.
pub const MAX_SCHEMA_DEPTH: usize = 24;

/// Why a listed tool can't be used. Names the member and the rule, never the value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ToolDefinitionError {
    /// The name is not allowed.
    #[error("`name` is {0}")]
    Name(#[from] NameError),
    /// The description is too long.
    #[error("`description` exceeds {MAX_DESCRIPTION_BYTES} bytes")]
    LongDescription,
    /// The input schema is too large.
    #[error("`inputSchema` exceeds {MAX_SCHEMA_BYTES} bytes")]
    LargeSchema,
    /// The input schema is nested too deeply.
    #[error("`inputSchema` is nested deeper than {MAX_SCHEMA_DEPTH} levels")]
    DeepSchema,
    /// A number has no canonical form.
    #[error("`inputSchema` has no canonical JSON (RFC 8785)")]
    NotCanonical,
}

/// A tool's name, description and input schema: the text that the model reads, and thus the text
/// that an admin reviews.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolDefinition {
    name: ToolName,
    /// The canonical JSON (RFC 8785) of `name`, `description` and `inputSchema`.
    text: String,
}

impl ToolDefinition {
    /// Builds a definition from a server's listing, unless the name is not a tool name or a part
    /// exceeds its limit.
    pub fn new(
        name: &str,
        description: Option<&str>,
        input_schema: &Map<String, Value>,
    ) -> Result<Self, ToolDefinitionError> {
        let name = name.parse::<ToolName>()?;
        if description.is_some_and(|text| text.len() > MAX_DESCRIPTION_BYTES) {
            return Err(ToolDefinitionError::LongDescription);
        }
        let schema = jcs::to_string(input_schema).ok_or(ToolDefinitionError::NotCanonical)?;
        if schema.len() > MAX_SCHEMA_BYTES {
            return Err(ToolDefinitionError::LargeSchema);
        }
        // Parsing the canonical text measures the depth of what will be kept.
        if strict_json::parse(schema.as_bytes(), MAX_SCHEMA_DEPTH).is_err() {
            return Err(ToolDefinitionError::DeepSchema);
        }
        let mut whole = json!({ "name": name, "inputSchema": input_schema });
        if let (Some(whole), Some(text)) = (whole.as_object_mut(), description) {
            whole.insert("description".to_owned(), text.into());
        }
        let text = jcs::to_string(&whole).ok_or(ToolDefinitionError::NotCanonical)?;
        Ok(Self { name, text })
    }

    /// Returns the tool's name.
    #[must_use]
    pub fn name(&self) -> &ToolName {
        &self.name
    }

    /// Returns the canonical JSON of the definition.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Computes the SHA-256 digest of the canonical JSON.
    #[must_use]
    pub fn digest(&self) -> ToolDigest {
        ToolDigest::of_canonical(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn digest_is_of_canonical_text() {
        let schema =
            object(json!({"type": "object", "properties": {"b": {"type": "number", "maximum": 1.0}, "a": {}}}));
        let definition = ToolDefinition::new("read_file", Some("Read a file"), &schema).unwrap();
        let text = r#"{"description":"Read a file","inputSchema":{"properties":{"a":{},"b":{"maximum":1,"type":"number"}},"type":"object"},"name":"read_file"}"#;
        assert_eq!(definition.as_str(), text);
        // Computed with: printf '%s' "$text" | openssl dgst -sha256 -binary | basenc --base64url
        assert_eq!(definition.digest().as_str(), "sha-256:cpLvD4UJ-kIe-QfBfjH1n4Rf9nInWA80FYBtg-kUeEQ");
        // Order and spelling don't count; everything else does.
        let same = object(json!({"properties": {"a": {}, "b": {"maximum": 1, "type": "number"}}, "type": "object"}));
        assert_eq!(ToolDefinition::new("read_file", Some("Read a file"), &same), Ok(definition.clone()));
        for (name, description, schema) in [
            ("read_files", Some("Read a file"), &schema),
            ("read_file", Some("Read a file "), &schema),
            ("read_file", Some(""), &schema),
            ("read_file", None, &schema),
            ("read_file", Some("Read a file"), &object(json!({"type": "object"}))),
        ] {
            assert_ne!(
                ToolDefinition::new(name, description, schema).unwrap().digest(),
                definition.digest(),
                "{name} {description:?}"
            );
        }
    }

    #[test]
    fn oversized_definition_is_rejected() {
        let nested = |depth: usize| object((0..depth).fold(json!({}), |inner, _| json!({"properties": inner})));
        let long = |bytes: usize| "x".repeat(bytes);
        let none = Map::new();
        for (name, description, schema, ok) in [
            ("a", None, none.clone(), true),
            ("", None, none.clone(), false),
            ("a b", None, none.clone(), false),
            ("ａ", None, none.clone(), false),
            ("a\u{202e}", None, none.clone(), false),
            (&long(128), None, none.clone(), true),
            (&long(129), None, none.clone(), false),
            ("a", Some(long(MAX_DESCRIPTION_BYTES)), none.clone(), true),
            ("a", Some(long(MAX_DESCRIPTION_BYTES + 1)), none.clone(), false),
            ("a", None, object(json!({"d": long(MAX_SCHEMA_BYTES - 8)})), true),
            ("a", None, object(json!({"d": long(MAX_SCHEMA_BYTES - 7)})), false),
            ("a", None, nested(MAX_SCHEMA_DEPTH), true),
            ("a", None, nested(MAX_SCHEMA_DEPTH + 1), false),
            ("a", None, nested(100), false),
        ] {
            let definition = ToolDefinition::new(name, description.as_deref(), &schema);
            assert_eq!(definition.is_ok(), ok, "{} {:?}", name.len(), description.map(|text| text.len()));
        }
        let hostile = ToolDefinition::new("a", Some("\u{0}\u{1b}[2J\u{202e}"), &none).unwrap();
        assert_eq!(
            hostile.as_str(),
            "{\"description\":\"\\u0000\\u001b[2J\u{202e}\",\"inputSchema\":{},\"name\":\"a\"}"
        );
    }
}
