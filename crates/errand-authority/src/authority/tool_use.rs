//! Tools with constraints: the entries of a ceiling.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use serde_json::{Map, Value};

use super::{Constraints, Permission, value::Arg};
use crate::{id::ToolName, uri::ResourceUri};

/// A tool and the calls of it that are allowed.
///
/// Serialized as the tool's name, which allows every call, or as an object with the members of an
/// `authorization_details` entry that describe it: `identifier`, `constraints` and
/// `additional_arguments`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolUse {
    /// The tool.
    pub tool: ToolName,
    /// Constraints on the arguments of a call.
    pub constraints: Constraints,
}

const TOOL_USE_MEMBERS: [&str; 3] = ["identifier", "constraints", "additional_arguments"];

impl ToolUse {
    /// Returns the permission for this tool at a resource.
    #[must_use]
    pub fn permission_at(&self, resource: &ResourceUri) -> Permission {
        let constraints = self.constraints.clone();
        Permission { constraints, ..Permission::unconstrained(resource.clone(), self.tool.clone()) }
    }

    fn parse(members: &BTreeMap<String, Arg>) -> Result<Self, &'static str> {
        if members.keys().any(|name| !TOOL_USE_MEMBERS.contains(&name.as_str())) {
            return Err("unknown member; a tool has `identifier`, `constraints` and `additional_arguments`");
        }
        let Some(Arg::Text(name)) = members.get("identifier") else {
            return Err("`identifier` is missing; set it to the name of the tool");
        };
        let tool = name.parse().map_err(|_| "`identifier` must be the name of a tool")?;
        let rules = Constraints::parse(members.get("constraints"), members.get("additional_arguments"));
        Ok(Self { tool, constraints: rules.map_err(|error| error.rule)? })
    }
}

impl From<ToolName> for ToolUse {
    fn from(tool: ToolName) -> Self {
        Self { tool, constraints: Constraints::none() }
    }
}

/// Displays the entry for a person, such as `read_file with path {"prefix":"/reports/"}`.
impl fmt::Display for ToolUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Constraints { arguments, allows_additional: additional } = &self.constraints;
        write!(f, "{}", self.tool)?;
        for (n, (name, rule)) in arguments.iter().enumerate() {
            let separator = if n == 0 { " with" } else { "," };
            write!(f, "{separator} {name} {}", rule.to_wire())?;
        }
        match (arguments.is_empty(), additional) {
            (true, true) | (false, false) => Ok(()),
            (true, false) => f.write_str(" without arguments"),
            (false, true) => f.write_str(" and any other argument"),
        }
    }
}

impl Serialize for ToolUse {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        if self.constraints == Constraints::none() {
            return self.tool.serialize(out);
        }
        let mut members = Map::new();
        members.insert("identifier".to_owned(), Value::String(self.tool.to_string()));
        self.constraints.write_members(&mut members);
        members.serialize(out)
    }
}

impl<'de> Deserialize<'de> for ToolUse {
    /// As strict as for a request: an ignored unknown rule would allow more than intended.
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        match Arg::try_from(Value::deserialize(input)?).map_err(D::Error::custom)? {
            Arg::Text(name) => name.parse::<ToolName>().map(Into::into).map_err(D::Error::custom),
            Arg::Object(members) => Self::parse(&members).map_err(D::Error::custom),
            Arg::Null | Arg::Bool(_) | Arg::Number(_) | Arg::List(_) => {
                Err(D::Error::custom("must be the name of a tool, or an object"))
            }
        }
    }
}
