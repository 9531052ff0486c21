//! The wire form of an authority: `authorization_details` of type `mcp_tool` (RFC 9396).
//!
//! Parsing is strict: an unknown member or constraint is rejected, never ignored, and the error
//! names its location.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value};
use thiserror::Error;

use super::{
    Action, Authority, ListAction, Permission,
    constraint::{Constraints, Rule, sort_canonical},
    escape::printable_name,
    value::{Arg, Decimal},
};
use crate::{digest::ToolDigest, id::ToolName, uri::ResourceUri};

/// The only known `type` of `authorization_details`.
pub const DETAIL_TYPE: &str = "mcp_tool";
/// The only action on a tool.
pub const CALL_ACTION: &str = "tools/call";
/// Maximum number of details in a request or token.
pub const MAX_DETAILS: usize = 64;
/// Maximum size of the `authorization_details` of a request in bytes, as sent and also when
/// expanded to one detail for each location.
pub const MAX_DETAILS_BYTES: usize = 16 * 1024;
/// Maximum nesting of `authorization_details`.
pub const MAX_DETAILS_DEPTH: usize = 8;

const DETAIL_MEMBERS: [&str; 7] =
    ["type", "locations", "actions", "identifier", "constraints", "additional_arguments", "tool_digest"];

/// A violated rule of `authorization_details` and its location. Never contains a sent value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("authorization_details{path}: {rule}")]
pub struct DetailsError {
    /// The location, such as `[0].constraints.path.one_of`.
    pub path: String,
    /// The violated rule.
    pub rule: &'static str,
}

/// The `authorization_details` of a request as sent. The resource of a detail without `locations`
/// is not known yet; see [`AuthorizationDetails::resolve`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationDetails(Vec<Arg>);

impl AuthorizationDetails {
    /// Parses strict JSON (RFC 9396 §2) without interpreting the details.
    pub fn parse(text: &str) -> Result<Self, DetailsError> {
        let invalid = |rule| DetailsError { path: String::new(), rule };
        if text.len() > MAX_DETAILS_BYTES {
            return Err(invalid("exceeds 16384 bytes; request fewer details"));
        }
        let value = Arg::parse(text, MAX_DETAILS_DEPTH)
            .map_err(|_| invalid("invalid JSON, a duplicate member, or nested too deeply"))?;
        let Arg::List(details) = value else {
            return Err(invalid("must be an array of objects"));
        };
        if details.is_empty() || details.len() > MAX_DETAILS {
            return Err(invalid("must contain 1 to 64 objects"));
        }
        Ok(Self(details))
    }

    /// Returns the requested permissions, with `target` as the resource of details without
    /// `locations`. A detail means the product of its arrays.
    pub fn resolve(&self, target: Option<&ResourceUri>) -> Result<RequestedPermissions, DetailsError> {
        let invalid = |path: String, rule| DetailsError { path, rule };
        let (mut permissions, mut size) = (Vec::new(), "]".len());
        for (n, detail) in self.0.iter().enumerate() {
            let parsed = read_detail(detail, target).map_err(|(path, rule)| invalid(format!("[{n}]{path}"), rule))?;
            if permissions.len() + parsed.len() > MAX_DETAILS {
                return Err(invalid(String::new(), "expands to more than 64 permissions; request fewer"));
            }
            for permission in parsed {
                // The product is stored and audited. A short text can expand to a large one, so its
                // size is limited too.
                size += ",".len() + permission.canonical_text().len();
                if size > MAX_DETAILS_BYTES {
                    return Err(invalid(
                        String::new(),
                        "expands to more than 16384 bytes, with one detail for each location; request fewer",
                    ));
                }
                permissions.push((n, permission));
            }
        }
        Ok(RequestedPermissions(permissions))
    }

    /// Returns the details as sent, for an audit record. A detail with a number that has no
    /// canonical form becomes `null`.
    #[must_use]
    pub fn to_value(&self) -> Value {
        Value::Array(self.0.iter().map(|detail| detail.to_canonical().unwrap_or_default()).collect())
    }
}

/// The permissions that the `authorization_details` of a request mean, each with its detail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedPermissions(Vec<(usize, Permission)>);

impl RequestedPermissions {
    /// Parses the `authorization_details` of a request, with `target` as the resource of details
    /// without `locations`.
    pub fn parse(text: &str, target: Option<&ResourceUri>) -> Result<Self, DetailsError> {
        AuthorizationDetails::parse(text)?.resolve(target)
    }

    /// Iterates over the requested permissions, each with the index of its detail.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Permission)> + Clone {
        self.0.iter().map(|(n, permission)| (*n, permission))
    }

    /// Replaces the resources, for example aliases by canonical URIs.
    #[must_use]
    pub fn map_resources(self, canonical: impl Fn(&ResourceUri) -> ResourceUri) -> Self {
        let permissions = self.0.into_iter();
        let replace = |permission: Permission| Permission { resource: canonical(&permission.resource), ..permission };
        Self(permissions.map(|(n, permission)| (n, replace(permission))).collect())
    }

    /// Returns all requested permissions.
    #[must_use]
    pub fn to_authority(&self) -> Authority {
        self.0.iter().map(|(_, permission)| permission.clone()).collect()
    }
}

/// Numbers the permissions in their order, as if each had a detail of its own.
impl FromIterator<Permission> for RequestedPermissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        Self(permissions.into_iter().enumerate().collect())
    }
}

/// An error on its way up: each level prepends its part of the location.
type LocatedError = (String, &'static str);

fn located_error<T>(path: impl Into<String>, rule: &'static str) -> Result<T, LocatedError> {
    Err((path.into(), rule))
}

/// Parses the `authorization_details` of a request, with `target` as the resource of details
/// without `locations`, and returns the requested authority.
pub fn parse_details(text: &str, target: Option<&ResourceUri>) -> Result<Authority, DetailsError> {
    RequestedPermissions::parse(text, target).map(|details| details.to_authority())
}

/// Parses one detail and returns its permissions. The caller limits the number and size of details.
pub fn parse_detail(detail: &Arg, target: Option<&ResourceUri>) -> Result<Vec<Permission>, DetailsError> {
    read_detail(detail, target).map_err(|(path, rule)| DetailsError { path, rule })
}

fn read_detail(detail: &Arg, target: Option<&ResourceUri>) -> Result<Vec<Permission>, LocatedError> {
    let Arg::Object(object) = detail else { return located_error("", "must be an object") };
    if !matches!(object.get("type"), Some(Arg::Text(kind)) if kind == DETAIL_TYPE) {
        return located_error(".type", "unknown type; use `mcp_tool`");
    }
    if object.keys().any(|name| !DETAIL_MEMBERS.contains(&name.as_str())) {
        return located_error(
            "",
            "unknown member; the known ones are `type`, `locations`, `actions`, `identifier`, `constraints`, `additional_arguments` and `tool_digest`",
        );
    }
    let resources = match (object.get("locations"), target) {
        (None, Some(target)) => vec![target.clone()],
        (None, None) => return located_error(".locations", "missing, and the request names no resource"),
        (Some(locations), _) => parse_locations(locations)?,
    };
    match object.get("actions") {
        Some(Arg::List(list)) if matches!(list.as_slice(), [Arg::Text(action)] if action == CALL_ACTION) => {
            let (tool, constraints, digest) = parse_call(object)?;
            let action = Action::Call(tool);
            let permission = |resource| Permission {
                resource,
                action: action.clone(),
                constraints: constraints.clone(),
                digest: digest.clone(),
            };
            Ok(resources.into_iter().map(permission).collect())
        }
        Some(Arg::List(list)) => parse_listings(object, list, resources),
        _ => located_error(".actions", ACTIONS_RULE),
    }
}

const ACTIONS_RULE: &str = "must be [\"tools/call\"], or one or both of \"tools/list\" and \"resources/list\"";

/// The parts of a call permission apart from its resource.
type CallParts = (ToolName, Constraints, Option<ToolDigest>);

fn parse_call(detail: &BTreeMap<String, Arg>) -> Result<CallParts, LocatedError> {
    let tool = match detail.get("identifier") {
        Some(Arg::Text(name)) => name.parse::<ToolName>().ok(),
        _ => None,
    };
    let Some(tool) = tool else { return located_error(".identifier", "must be the name of a tool") };
    let digest = match detail.get("tool_digest") {
        None => None,
        Some(Arg::Text(digest)) => digest
            .parse::<ToolDigest>()
            .ok()
            .map_or_else(|| located_error(".tool_digest", DIGEST_RULE), |digest| Ok(Some(digest)))?,
        Some(_) => return located_error(".tool_digest", DIGEST_RULE),
    };
    Ok((tool, parse_constraints(detail.get("constraints"), detail.get("additional_arguments"))?, digest))
}

const DIGEST_RULE: &str = "must be `sha-256:` and 43 characters of base64url";

/// A list action has no tool, so members that describe one are rejected.
fn parse_listings(
    detail: &BTreeMap<String, Arg>,
    actions: &[Arg],
    resources: Vec<ResourceUri>,
) -> Result<Vec<Permission>, LocatedError> {
    let listing = |action: &Arg| match action {
        Arg::Text(method) => ListAction::parse(method),
        _ => None,
    };
    let listings = actions.iter().map(listing).collect::<Option<BTreeSet<_>>>();
    let Some(listings) = listings.filter(|listings| !listings.is_empty() && listings.len() == actions.len()) else {
        return located_error(".actions", ACTIONS_RULE);
    };
    let tool_members = ["identifier", "constraints", "additional_arguments", "tool_digest"];
    if tool_members.iter().any(|member| detail.contains_key(*member)) {
        return located_error(
            "",
            "a list action has no tool; omit `identifier`, `constraints`, `additional_arguments` and `tool_digest`",
        );
    }
    let at = |resource: ResourceUri| {
        listings.clone().into_iter().map(move |listing| Permission::listing(resource.clone(), listing))
    };
    Ok(resources.into_iter().flat_map(at).collect())
}

fn parse_locations(locations: &Arg) -> Result<Vec<ResourceUri>, LocatedError> {
    let list = match locations {
        Arg::List(list) if (1..=MAX_DETAILS).contains(&list.len()) => list,
        _ => return located_error(".locations", "must be an array of 1 to 64 resource URIs"),
    };
    let uri = |(n, location): (usize, &Arg)| match location {
        Arg::Text(uri) => {
            uri.parse().or_else(|_| located_error(format!(".locations[{n}]"), "must be the URI of a resource"))
        }
        _ => located_error(format!(".locations[{n}]"), "must be the URI of a resource"),
    };
    list.iter().enumerate().map(uri).collect()
}

fn parse_constraints(rules: Option<&Arg>, additional: Option<&Arg>) -> Result<Constraints, LocatedError> {
    let mut arguments = BTreeMap::new();
    match rules {
        None => {}
        Some(Arg::Object(rules)) => {
            for (name, rule) in rules {
                let locate =
                    |(path, rule): LocatedError| (format!(".constraints.{}{path}", printable_name(name)), rule);
                if name.contains('\0') {
                    return Err(locate((String::new(), "the name must not contain a NUL character")));
                }
                arguments.insert(name.clone(), parse_rule(rule).map_err(locate)?);
            }
        }
        Some(_) => return located_error(".constraints", "must be an object that maps argument names to rules"),
    }
    let additional = match additional {
        None => arguments.is_empty(),
        Some(Arg::Bool(additional)) => *additional,
        Some(_) => return located_error(".additional_arguments", "must be true or false"),
    };
    Ok(Constraints { arguments, allows_additional: additional })
}

fn parse_rule(rule: &Arg) -> Result<Rule, LocatedError> {
    let Arg::Object(kinds) = rule else { return located_error("", "must be an object, such as {\"one_of\": […]}") };
    if kinds.is_empty() {
        return located_error("", "empty rule; to allow any value, use {\"any\": true}");
    }
    if kinds.contains_key("any") {
        let alone = kinds.len() == 1 && kinds.get("any") == Some(&Arg::Bool(true));
        return if alone {
            Ok(Rule::default())
        } else {
            located_error(".any", "must be true, without other constraints")
        };
    }
    let mut read = Rule::default();
    for (kind, value) in kinds {
        match kind.as_str() {
            "equals" if kinds.contains_key("one_of") => {
                return located_error(".equals", "can't be combined with `one_of`; use one of them");
            }
            "equals" => read.one_of = Some(parse_values(".equals", std::slice::from_ref(value))?),
            "one_of" => read.one_of = Some(parse_list(".one_of", value, 1)?),
            "not_one_of" => read.not_one_of = parse_list(".not_one_of", value, 1)?,
            "min" => read.min = Some(parse_number(".min", value)?),
            "max" => read.max = Some(parse_number(".max", value)?),
            "prefix" => read.prefix = Some(parse_prefix(value)?),
            "subset" => read.subset = Some(parse_list(".subset", value, 0)?),
            "max_length" => read.max_length = Some(parse_count(value)?),
            _ => {
                return located_error(
                    "",
                    "unknown constraint; use `equals`, `one_of`, `not_one_of`, `min`, `max`, `prefix`, `subset`, `max_length` or `any`",
                );
            }
        }
    }
    if read.is_satisfiable() { Ok(read) } else { located_error("", "no value satisfies this rule") }
}

/// Parses an array of values: in canonical order, without duplicates.
fn parse_list(location: &'static str, value: &Arg, min_len: usize) -> Result<Vec<Arg>, LocatedError> {
    match value {
        Arg::List(list) if (min_len..=256).contains(&list.len()) => parse_values(location, list),
        _ => located_error(location, "must be an array of at most 256 values"),
    }
}

fn parse_values(location: &'static str, list: &[Arg]) -> Result<Vec<Arg>, LocatedError> {
    for value in list {
        let Some(canonical) = value.to_canonical() else { return located_error(location, NOT_CANONICAL_RULE) };
        if canonical.to_string().contains("\\u0000") {
            return located_error(location, "must not contain a NUL character");
        }
    }
    Ok(sort_canonical(list))
}

const NOT_CANONICAL_RULE: &str = "contains a number that a double can't represent exactly (RFC 8785); use a string";

fn parse_number(location: &'static str, value: &Arg) -> Result<Decimal, LocatedError> {
    match value {
        Arg::Number(_) if value.to_canonical().is_none() => located_error(location, NOT_CANONICAL_RULE),
        Arg::Number(number) => Ok(number.clone()),
        _ => located_error(location, "must be a number"),
    }
}

fn parse_prefix(value: &Arg) -> Result<String, LocatedError> {
    match value {
        Arg::Text(prefix) if super::path::is_traversal_free(prefix) && !prefix.contains('\0') => Ok(prefix.clone()),
        _ => located_error(
            ".prefix",
            "must be a string without dot segments, empty segments, backslashes or other spellings of these",
        ),
    }
}

fn parse_count(value: &Arg) -> Result<u32, LocatedError> {
    let number = value.to_canonical().and_then(|value| value.as_u64()).and_then(|count| u32::try_from(count).ok());
    number.map_or_else(|| located_error(".max_length", "must be an integer, 0 or more"), Ok)
}

impl Constraints {
    /// Parses the members `constraints` and `additional_arguments` of a detail. The location of an
    /// error is relative to the detail.
    pub fn parse(rules: Option<&Arg>, additional: Option<&Arg>) -> Result<Self, DetailsError> {
        parse_constraints(rules, additional).map_err(|(path, rule)| DetailsError { path, rule })
    }

    /// Writes both members, without defaults.
    pub(super) fn write_members(&self, detail: &mut Map<String, Value>) {
        detail.extend(self.rules_to_write().map(|rules| ("constraints".to_owned(), Value::Object(rules))));
        let additional = self.additional_to_write().map(Value::Bool);
        detail.extend(additional.map(|additional| ("additional_arguments".to_owned(), additional)));
    }

    fn rules_to_write(&self) -> Option<Map<String, Value>> {
        let rules = || self.arguments.iter().map(|(name, rule)| (name.clone(), rule.to_wire())).collect();
        (!self.arguments.is_empty()).then(rules)
    }

    fn additional_to_write(&self) -> Option<bool> {
        (self.allows_additional != self.arguments.is_empty()).then_some(self.allows_additional)
    }
}

impl Rule {
    pub(super) fn to_wire(&self) -> Value {
        let mut wire = Map::new();
        let mut put = |kind: &str, value: Option<Value>| {
            wire.extend(value.map(|value| (kind.to_owned(), value)));
        };
        // Every value of a rule has a canonical form; parsing rejects others.
        let all = |list: &[Arg]| Value::Array(list.iter().filter_map(Arg::to_canonical).collect());
        let number = |n: &Decimal| Arg::Number(n.clone()).to_canonical();
        put("any", self.is_any().then_some(Value::Bool(true)));
        let (equals, one_of) = match self.one_of.as_deref() {
            Some([one]) => (one.to_canonical(), None),
            Some(list) => (None, Some(all(list))),
            None => (None, None),
        };
        put("equals", equals);
        put("max", self.max.as_ref().and_then(number));
        put("max_length", self.max_length.map(Value::from));
        put("min", self.min.as_ref().and_then(number));
        put("not_one_of", (!self.not_one_of.is_empty()).then(|| all(&self.not_one_of)));
        put("one_of", one_of);
        put("prefix", self.prefix.clone().map(Value::String));
        put("subset", self.subset.as_deref().map(all));
        Value::Object(wire)
    }
}

impl Serialize for Permission {
    /// One location, one action, no defaults; in canonical order, as it is hashed.
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let method = match &self.action {
            Action::Call(_) => CALL_ACTION,
            Action::List(listing) => listing.as_str(),
        };
        let mut detail = out.serialize_map(None)?;
        detail.serialize_entry("actions", &[method])?;
        if let Some(additional) = self.constraints.additional_to_write() {
            detail.serialize_entry("additional_arguments", &additional)?;
        }
        if let Some(rules) = self.constraints.rules_to_write() {
            detail.serialize_entry("constraints", &rules)?;
        }
        if let Some(tool) = self.tool() {
            detail.serialize_entry("identifier", tool)?;
        }
        detail.serialize_entry("locations", &[&self.resource])?;
        if let Some(digest) = &self.digest {
            detail.serialize_entry("tool_digest", digest)?;
        }
        detail.serialize_entry("type", DETAIL_TYPE)?;
        detail.end()
    }
}

impl Serialize for Authority {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_seq(self.iter())
    }
}
