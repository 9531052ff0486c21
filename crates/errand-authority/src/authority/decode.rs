//! Deserialization of authorities that Errand serialized: from a token, the store or a response. As
//! strict as for a request, but without an intermediate tree of values, except in constraints.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::Number;

use super::{
    Action, Authority, Constraints, ListAction, Permission,
    value::{Arg, Decimal},
    wire::{CALL_ACTION, DETAIL_TYPE, MAX_DETAILS},
};
use crate::{digest::ToolDigest, encoding::serde_text, id::ToolName, uri::ResourceUri};

/// Depth limit of `Deserialize`, which is that of the parser.
const DEFAULT_MAX_DEPTH: usize = 128;

impl<'de> Deserialize<'de> for Authority {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Self::deserialize_with_depth(input, DEFAULT_MAX_DEPTH)
    }
}

impl Authority {
    /// Deserializes an authority with at most `depth` levels of nesting (a scalar is level 0).
    ///
    /// # Errors
    ///
    /// Returns an error if the input is not a strict authority, or nests deeper.
    pub fn deserialize_with_depth<'de, D: Deserializer<'de>>(input: D, depth: usize) -> Result<Self, D::Error> {
        input.deserialize_seq(DetailsVisitor { depth })
    }
}

struct DetailsVisitor {
    depth: usize,
}

impl<'de> Visitor<'de> for DetailsVisitor {
    type Value = Authority;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Authority, A::Error> {
        let depth = descend(self.depth)?;
        let mut permissions = Vec::new();
        while items.next_element_seed(DetailSeed { depth, permissions: &mut permissions })?.is_some() {}
        Ok(permissions.into_iter().collect())
    }
}

fn descend<E: Error>(depth: usize) -> Result<usize, E> {
    depth.checked_sub(1).ok_or_else(|| E::custom("nested too deeply"))
}

/// Reads one detail and appends its permissions.
struct DetailSeed<'a> {
    depth: usize,
    permissions: &'a mut Vec<Permission>,
}

impl<'de> DeserializeSeed<'de> for DetailSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for DetailSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut read = DetailMembers::default();
        while let Some(member) = members.next_key::<DetailMember>()? {
            let depth = descend(self.depth)?;
            let is_first = match member {
                DetailMember::Type => read.kind.replace(members.next_value()?).is_none(),
                DetailMember::Locations => read.locations.replace(members.next_value()?).is_none(),
                DetailMember::Actions => read.actions.replace(members.next_value()?).is_none(),
                DetailMember::Identifier => read.identifier.replace(members.next_value()?).is_none(),
                DetailMember::Constraints => {
                    read.constraints.replace(members.next_value_seed(ArgVisitor { depth })?).is_none()
                }
                DetailMember::AdditionalArguments => read.additional_arguments.replace(members.next_value()?).is_none(),
                DetailMember::ToolDigest => read.tool_digest.replace(members.next_value()?).is_none(),
            };
            if !is_first {
                return Err(A::Error::custom("duplicate member"));
            }
        }
        read.append_permissions(self.permissions).map_err(A::Error::custom)
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum DetailMember {
    Type,
    Locations,
    Actions,
    Identifier,
    Constraints,
    AdditionalArguments,
    ToolDigest,
}

#[derive(Default)]
struct DetailMembers {
    kind: Option<DetailType>,
    locations: Option<Locations>,
    actions: Option<Actions>,
    identifier: Option<ToolName>,
    constraints: Option<Arg>,
    additional_arguments: Option<bool>,
    tool_digest: Option<ToolDigest>,
}

/// The only known `type`.
struct DetailType;

impl<'de> Deserialize<'de> for DetailType {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        serde_text::read_with(input, |kind| (kind == DETAIL_TYPE).then_some(Self).ok_or("unknown type"))
    }
}

/// One or more resources; usually one.
struct Locations {
    others: Vec<ResourceUri>,
    last: ResourceUri,
}

impl<'de> Deserialize<'de> for Locations {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let (mut others, mut last) = (Vec::new(), None::<ResourceUri>);
        for_each_item(input, |uri| others.extend(last.replace(uri)))?;
        let last = last.filter(|_| others.len() < MAX_DETAILS);
        last.map(|last| Self { others, last }).ok_or_else(|| D::Error::custom("must be 1 to 64"))
    }
}

/// Either the call action or list actions.
enum Actions {
    Call,
    List(Vec<ListAction>),
}

impl<'de> Deserialize<'de> for Actions {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let (mut calls, mut listings, mut is_twice) = (0_usize, Vec::new(), false);
        for_each_item(input, |method| match method {
            ActionName::Call => calls += 1,
            ActionName::List(listing) => {
                is_twice |= listings.contains(&listing);
                listings.push(listing);
            }
        })?;
        match (calls, is_twice) {
            (1, false) if listings.is_empty() => Ok(Self::Call),
            (0, false) if !listings.is_empty() => Ok(Self::List(listings)),
            _ => Err(D::Error::custom("must be `tools/call` alone, or list actions without duplicates")),
        }
    }
}

/// One item of `actions`.
enum ActionName {
    Call,
    List(ListAction),
}

impl<'de> Deserialize<'de> for ActionName {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        serde_text::read_with(input, |method| {
            let call = (method == CALL_ACTION).then_some(Self::Call);
            call.or_else(|| ListAction::parse(method).map(Self::List)).ok_or("unknown action")
        })
    }
}

/// Passes each item of an array to `take` without collecting them.
fn for_each_item<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    input: D,
    take: impl FnMut(T),
) -> Result<(), D::Error> {
    input.deserialize_seq(ItemVisitor(take, PhantomData))
}

struct ItemVisitor<F, T>(F, PhantomData<T>);

impl<'de, T: Deserialize<'de>, F: FnMut(T)> Visitor<'de> for ItemVisitor<F, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        while let Some(item) = items.next_element()? {
            (self.0)(item);
        }
        Ok(())
    }
}

impl DetailMembers {
    /// Appends the permissions of the detail: the product of its arrays.
    fn append_permissions(self, permissions: &mut Vec<Permission>) -> Result<(), &'static str> {
        let Self {
            kind,
            locations,
            actions,
            identifier: tool,
            constraints: rules,
            additional_arguments: additional,
            tool_digest: digest,
        } = self;
        let (Some(DetailType), Some(Locations { others, last }), Some(actions)) = (kind, locations, actions) else {
            return Err("lacks `type`, `locations` or `actions`");
        };
        let listings = match actions {
            Actions::Call => {
                let action = Action::Call(tool.ok_or("lacks `identifier`")?);
                let additional = additional.map(Arg::Bool);
                let constraints =
                    Constraints::parse(rules.as_ref(), additional.as_ref()).map_err(|invalid| invalid.rule)?;
                let last = Permission { resource: last, action, constraints, digest };
                permissions.extend(others.into_iter().map(|resource| Permission { resource, ..last.clone() }));
                permissions.push(last);
                return Ok(());
            }
            Actions::List(listings) => listings,
        };
        if tool.is_some() || rules.is_some() || additional.is_some() || digest.is_some() {
            return Err("has a list action and a member that describes a tool");
        }
        for resource in others.into_iter().chain([last]) {
            permissions.extend(listings.iter().map(|listing| Permission::listing(resource.clone(), *listing)));
        }
        Ok(())
    }
}

/// Reads the value of an argument.
struct ArgVisitor {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for ArgVisitor {
    type Value = Arg;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Arg, D::Error> {
        input.deserialize_any(self)
    }
}

/// Numbers that Errand wrote are canonical, so the double is exact.
fn number_value<E: Error>(number: Option<Number>) -> Result<Arg, E> {
    let decimal = number.and_then(|number| Decimal::parse(&number.to_string()));
    decimal.map(Arg::Number).ok_or_else(|| E::custom("not a finite number"))
}

impl<'de> Visitor<'de> for ArgVisitor {
    type Value = Arg;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Arg, E> {
        Ok(Arg::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Arg, E> {
        number_value(Some(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Arg, E> {
        number_value(Some(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Arg, E> {
        number_value(Number::from_f64(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Arg, E> {
        Ok(Arg::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Arg, E> {
        Ok(Arg::Text(value))
    }

    fn visit_unit<E>(self) -> Result<Arg, E> {
        Ok(Arg::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Arg, A::Error> {
        let depth = descend(self.depth)?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Self { depth })? {
            list.push(item);
        }
        Ok(Arg::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Arg, A::Error> {
        let mut object = BTreeMap::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom("duplicate member"));
            }
            object.insert(name, members.next_value_seed(Self { depth: descend(self.depth)? })?);
        }
        Ok(Arg::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use serde::de::value::{BytesDeserializer, Error as ValueError};

    use super::*;

    #[test]
    fn errors_say_what_is_expected() {
        let detail = |members: &str| format!(r#"[{{"type":"mcp_tool",{members}}}]"#);
        for (text, expected) in [
            ("1".to_owned(), "an array of objects"),
            ("[1]".to_owned(), "an object"),
            (detail(r#""locations":1"#), "an array"),
            (detail(r#""actions":{}"#), "an array"),
            (detail(r#""identifier":1"#), "a string"),
            (detail(r#""tool_digest":[]"#), "a string"),
            (detail(r#""additional_arguments":1"#), "a boolean"),
        ] {
            let error = serde_json::from_str::<Authority>(&text).unwrap_err().to_string();
            assert!(error.contains(&format!(", expected {expected} at ")), "{text} {error}");
        }
        let error = ArgVisitor { depth: 1 }.deserialize(BytesDeserializer::<ValueError>::new(b"")).unwrap_err();
        assert!(error.to_string().ends_with(", expected JSON"), "{error}");
    }
}
