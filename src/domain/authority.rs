//! What may be done: a set of permissions, each a tool of a resource, and its wire form (RFC 9396, type `mcp_tool`).
//!
//! An authority only ever shrinks: [`Authority::within`] and [`Authority::meet`] are the two relations it shrinks by.

use std::collections::BTreeSet;

use ring::digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::domain::{id::ToolName, uri::ResourceUri};

/// The one `type` of `authorization_details` that we know.
pub const DETAIL_TYPE: &str = "mcp_tool";
/// The one action on a tool.
pub const ACTION: &str = "tools/call";
/// How many details one request or token may carry.
pub const MAX_DETAILS: usize = 64;
/// How many bytes of `authorization_details` a request may carry.
pub const MAX_DETAILS_BYTES: usize = 16 * 1024;
/// How deep `authorization_details` may nest.
pub const MAX_DETAILS_DEPTH: usize = 8;

/// One thing that may be done: call this tool of this resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Permission {
    /// The MCP server.
    pub resource: ResourceUri,
    /// The tool, by its name there.
    pub tool: ToolName,
}

/// A set of permissions. The empty one allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authority(BTreeSet<Permission>);

impl Authority {
    /// Whether the call is allowed.
    #[must_use]
    pub fn allows(&self, resource: &ResourceUri, tool: &ToolName) -> bool {
        self.0.iter().any(|p| p.resource == *resource && p.tool == *tool)
    }

    /// Whether everything that `self` allows, `other` allows.
    #[must_use]
    pub fn within(&self, other: &Self) -> bool {
        self.0.is_subset(&other.0)
    }

    /// What both allow.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).cloned().collect())
    }

    /// The first permission of `self` that `other` does not have: what to name when a request asks for too much.
    #[must_use]
    pub fn beyond<'a>(&'a self, other: &'a Self) -> Option<&'a Permission> {
        self.0.difference(&other.0).next()
    }

    /// The part that is about one resource: what may stand in a token for it.
    #[must_use]
    pub fn at(&self, resource: &ResourceUri) -> Self {
        Self(self.0.iter().filter(|p| p.resource == *resource).cloned().collect())
    }

    /// Whether nothing is allowed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many permissions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The permissions, sorted by resource and tool.
    pub fn iter(&self) -> impl Iterator<Item = &Permission> {
        self.0.iter()
    }

    /// `sha-256:` and the base64url digest of the canonical JSON (RFC 8785) of the permissions.
    #[must_use]
    pub fn hash(&self) -> String {
        // Serialising our own structs of strings can't fail; an empty text would only ever hash to something nobody approved.
        let canonical = serde_json_canonicalizer::to_vec(self).unwrap_or_default();
        format!("sha-256:{}", crate::domain::encode(digest::digest(&digest::SHA256, &canonical).as_ref()))
    }
}

impl FromIterator<Permission> for Authority {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        Self(permissions.into_iter().collect())
    }
}

/// The wire form of one permission, as we write it: one location, one action.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Detail {
    r#type: String,
    locations: [ResourceUri; 1],
    actions: [String; 1],
    identifier: ToolName,
}

impl Serialize for Authority {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_seq(self.0.iter().map(|p| Detail {
            r#type: DETAIL_TYPE.into(),
            locations: [p.resource.clone()],
            actions: [ACTION.into()],
            identifier: p.tool.clone(),
        }))
    }
}

impl<'de> Deserialize<'de> for Authority {
    /// Reads what we wrote ourselves; a request is read by [`parse_details`], which says what is wrong.
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let details = Vec::<Detail>::deserialize(input)?;
        details
            .into_iter()
            .map(|d| {
                let [resource] = d.locations;
                let [action] = d.actions;
                (d.r#type == DETAIL_TYPE && action == ACTION)
                    .then_some(Permission { resource, tool: d.identifier })
                    .ok_or_else(|| serde::de::Error::custom("not an mcp_tool detail"))
            })
            .collect()
    }
}

/// What is wrong in `authorization_details`, and where; never what was sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("authorization_details{path}: {rule}")]
pub struct InvalidDetails {
    /// The place, such as `[0].locations`.
    pub path: String,
    /// The rule that is broken there.
    pub rule: &'static str,
}

/// Reads the `authorization_details` of a request (RFC 9396 §2). The meaning of one detail is the product of its arrays;
/// without `locations` it is about `target`, the resource that the request names.
pub fn parse_details(text: &str, target: Option<&ResourceUri>) -> Result<Authority, InvalidDetails> {
    let invalid = |path: String, rule| InvalidDetails { path, rule };
    if text.len() > MAX_DETAILS_BYTES {
        return Err(invalid(String::new(), "longer than 16384 bytes"));
    }
    let value = crate::domain::json::parse(text.as_bytes(), MAX_DETAILS_DEPTH)
        .map_err(|_| invalid(String::new(), "not JSON, nested too deep, or a member stands in it twice"))?;
    let Value::Array(details) = value else {
        return Err(invalid(String::new(), "must be an array of objects"));
    };
    if details.is_empty() || details.len() > MAX_DETAILS {
        return Err(invalid(String::new(), "must hold 1 to 64 objects"));
    }
    let mut permissions = BTreeSet::new();
    for (n, detail) in details.iter().enumerate() {
        for permission in parse_detail(detail, target).map_err(|(path, rule)| invalid(format!("[{n}]{path}"), rule))? {
            permissions.insert(permission);
        }
    }
    if permissions.len() > MAX_DETAILS {
        return Err(invalid(String::new(), "means more than 64 permissions"));
    }
    Ok(Authority(permissions))
}

type Fault = (String, &'static str);

fn parse_detail(detail: &Value, target: Option<&ResourceUri>) -> Result<Vec<Permission>, Fault> {
    let fault = |path: &str, rule| (path.to_owned(), rule);
    let object = detail.as_object().ok_or_else(|| fault("", "must be an object"))?;
    if object.get("type").and_then(Value::as_str) != Some(DETAIL_TYPE) {
        return Err(fault(".type", "the one type known here is `mcp_tool`"));
    }
    if object.keys().any(|name| !matches!(name.as_str(), "type" | "locations" | "actions" | "identifier")) {
        return Err(fault("", "has a member other than type, locations, actions and identifier"));
    }
    let actions = object.get("actions").and_then(Value::as_array).map(Vec::as_slice);
    if !matches!(actions, Some([Value::String(action)]) if action == ACTION) {
        return Err(fault(".actions", "must be [\"tools/call\"]"));
    }
    let tool = object
        .get("identifier")
        .and_then(Value::as_str)
        .and_then(|name| name.parse::<ToolName>().ok())
        .ok_or_else(|| fault(".identifier", "must be the name of a tool"))?;
    let resources = match (object.get("locations"), target) {
        (None, Some(target)) => vec![target.clone()],
        (None, None) => return Err(fault(".locations", "is missing, and the request names no resource")),
        (Some(locations), _) => parse_locations(locations)?,
    };
    Ok(resources.into_iter().map(|resource| Permission { resource, tool: tool.clone() }).collect())
}

fn parse_locations(locations: &Value) -> Result<Vec<ResourceUri>, Fault> {
    let list = locations
        .as_array()
        .filter(|list| (1..=MAX_DETAILS).contains(&list.len()))
        .ok_or_else(|| (".locations".to_owned(), "must be an array of 1 to 64 resource URIs"))?;
    list.iter()
        .enumerate()
        .map(|(n, uri)| {
            uri.as_str()
                .and_then(|uri| uri.parse().ok())
                .ok_or_else(|| (format!(".locations[{n}]"), "must be the URI of a resource"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILES: &str = "https://files.example.com/mcp";

    fn parsed(text: &str) -> Result<Authority, String> {
        parse_details(text, Some(&FILES.parse().unwrap())).map_err(|e| e.to_string())
    }

    #[test]
    fn a_detail_is_the_product_of_its_arrays() {
        let authority = parsed(
            r#"[{"type":"mcp_tool","locations":["https://a.example","https://b.example/"],"actions":["tools/call"],"identifier":"read"},
                {"type":"mcp_tool","actions":["tools/call"],"identifier":"read_file"}]"#,
        )
        .unwrap();
        let names = authority.iter().map(|p| format!("{} {}", p.resource, p.tool)).collect::<Vec<_>>();
        assert_eq!(
            names,
            ["https://a.example read", "https://b.example read", "https://files.example.com/mcp read_file"]
        );
        let json = serde_json::to_string(&authority.at(&FILES.parse().unwrap())).unwrap();
        assert_eq!(
            json,
            r#"[{"type":"mcp_tool","locations":["https://files.example.com/mcp"],"actions":["tools/call"],"identifier":"read_file"}]"#
        );
        assert_eq!(parsed(&json).unwrap(), serde_json::from_str::<Authority>(&json).unwrap());
    }

    #[test]
    fn says_where_it_is_wrong_and_never_what_was_sent() {
        let one = |members: &str| format!(r#"[{{"type":"mcp_tool","actions":["tools/call"],{members}}}]"#);
        for (text, want) in [
            ("{}", "authorization_details: must be an array of objects"),
            ("[]", "authorization_details: must hold 1 to 64 objects"),
            ("[1]", "authorization_details[0]: must be an object"),
            (r#"[{"type":"payment"}]"#, "authorization_details[0].type: the one type known here is `mcp_tool`"),
            (r#"[{"identifier":"x"}]"#, "authorization_details[0].type: the one type known here is `mcp_tool`"),
            (
                &one(r#""identifier":"x","privileges":["admin"]"#),
                "authorization_details[0]: has a member other than type, locations, actions and identifier",
            ),
            (&one(r#""identifier":"a b""#), "authorization_details[0].identifier: must be the name of a tool"),
            (&one(r#""identifier":["x"]"#), "authorization_details[0].identifier: must be the name of a tool"),
            (
                &one(r#""identifier":"x","locations":"https://a.example""#),
                "authorization_details[0].locations: must be an array of 1 to 64 resource URIs",
            ),
            (
                &one(r#""identifier":"x","locations":["https://a.example","a#b"]"#),
                "authorization_details[0].locations[1]: must be the URI of a resource",
            ),
            (r#"[{"type":"mcp_tool","identifier":"x"}]"#, "authorization_details[0].actions: must be [\"tools/call\"]"),
            (
                r#"[{"type":"mcp_tool","actions":["tools/call","tools/list"],"identifier":"x"}]"#,
                "authorization_details[0].actions: must be [\"tools/call\"]",
            ),
            (
                &one(r#""identifier":"x","identifier":"y""#),
                "authorization_details: not JSON, nested too deep, or a member stands in it twice",
            ),
        ] {
            assert_eq!(parsed(text), Err(want.to_owned()), "{text}");
        }
        let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
        assert!(parsed(&deep).unwrap_err().contains("nested too deep"));
        assert!(parsed(&" ".repeat(16_385)).unwrap_err().contains("16384"));
    }

    #[test]
    fn the_hash_is_of_the_canonical_form() {
        let a = parsed(r#"[{"type":"mcp_tool","actions":["tools/call"],"identifier":"a"}]"#).unwrap();
        let again = parsed(r#"[{"identifier":"a","actions":["tools/call"],"type":"mcp_tool"}]"#).unwrap();
        let other = parsed(r#"[{"type":"mcp_tool","actions":["tools/call"],"identifier":"b"}]"#).unwrap();
        assert_eq!(a.hash(), again.hash());
        assert_ne!(a.hash(), other.hash());
        // printf '[{"actions":["tools/call"],"identifier":"a","locations":["https://files.example.com/mcp"],"type":"mcp_tool"}]' | openssl dgst -sha256 -binary | basenc --base64url
        let by_hand = r#"[{"actions":["tools/call"],"identifier":"a","locations":["https://files.example.com/mcp"],"type":"mcp_tool"}]"#;
        assert_eq!(serde_json_canonicalizer::to_string(&a).unwrap(), by_hand);
    }

    fn authorities() -> impl Strategy<Value = Authority> {
        let permission = (0..3u8, 0..4u8).prop_map(|(r, t)| Permission {
            resource: format!("https://r{r}.example").parse().unwrap(),
            tool: format!("t{t}").parse().unwrap(),
        });
        proptest::collection::vec(permission, 0..8).prop_map(|ps| ps.into_iter().collect())
    }

    proptest! {
        #[test]
        fn shrinking_is_sound(a in authorities(), b in authorities(), c in authorities()) {
            let meet = a.meet(&b);
            prop_assert!(meet.within(&a) && meet.within(&b) && a.within(&a));
            prop_assert!(!(a.within(&b) && b.within(&c)) || a.within(&c));
            prop_assert_eq!(a.within(&b), a.beyond(&b).is_none());
            for p in meet.iter() {
                prop_assert!(a.allows(&p.resource, &p.tool) && b.allows(&p.resource, &p.tool));
            }
        }
    }
}
