//! Reads authorities that we wrote ourselves: from a token, from the store, from an answer. As strictly as a request, and
//! without a tree of values in between, except for what constraints say.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::Number;

use super::{
    Action, Authority, Constraints, Listing, Permission,
    value::{Arg, Decimal},
    wire::{CALL, DETAIL_TYPE, MAX_DETAILS},
};
use crate::domain::{
    id::{ToolDigest, ToolName},
    text,
    uri::ResourceUri,
};

/// How deep an authority may nest where nobody says: as deep as the parser goes.
const ANY_DEPTH: usize = 128;

impl<'de> Deserialize<'de> for Authority {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Self::read(input, ANY_DEPTH)
    }
}

impl Authority {
    /// Reads one that has at most `depth` levels (a scalar is level 0).
    pub(in crate::domain) fn read<'de, D: Deserializer<'de>>(input: D, depth: usize) -> Result<Self, D::Error> {
        input.deserialize_seq(Details { depth })
    }
}

struct Details {
    depth: usize,
}

impl<'de> Visitor<'de> for Details {
    type Value = Authority;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Authority, A::Error> {
        let depth = below(self.depth)?;
        let mut permissions = Vec::new();
        while items.next_element_seed(Detail { depth, into: &mut permissions })?.is_some() {}
        Ok(permissions.into_iter().collect())
    }
}

fn below<E: Error>(depth: usize) -> Result<usize, E> {
    depth.checked_sub(1).ok_or_else(|| E::custom("nested too deep"))
}

/// One detail, which is the permissions that it means.
struct Detail<'a> {
    depth: usize,
    into: &'a mut Vec<Permission>,
}

impl<'de> DeserializeSeed<'de> for Detail<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Detail<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut read = Members::default();
        while let Some(member) = members.next_key::<Member>()? {
            let depth = below(self.depth)?;
            let is_first = match member {
                Member::Type => read.kind.replace(members.next_value()?).is_none(),
                Member::Locations => read.locations.replace(members.next_value()?).is_none(),
                Member::Actions => read.actions.replace(members.next_value()?).is_none(),
                Member::Identifier => read.tool.replace(members.next_value()?).is_none(),
                Member::Constraints => read.rules.replace(members.next_value_seed(AnyArg { depth })?).is_none(),
                Member::AdditionalArguments => read.additional.replace(members.next_value()?).is_none(),
                Member::ToolDigest => read.digest.replace(members.next_value()?).is_none(),
            };
            if !is_first {
                return Err(A::Error::custom("member stands twice"));
            }
        }
        read.put_into(self.into).map_err(A::Error::custom)
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Member {
    Type,
    Locations,
    Actions,
    Identifier,
    Constraints,
    AdditionalArguments,
    ToolDigest,
}

#[derive(Default)]
struct Members {
    kind: Option<Kind>,
    locations: Option<Locations>,
    actions: Option<Actions>,
    tool: Option<ToolName>,
    rules: Option<Arg>,
    additional: Option<bool>,
    digest: Option<ToolDigest>,
}

/// The one type that there is.
struct Kind;

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        text::read_by(input, |kind| (kind == DETAIL_TYPE).then_some(Self).ok_or("is not known"))
    }
}

/// The resources, of which there is mostly one.
struct Locations {
    others: Vec<ResourceUri>,
    last: ResourceUri,
}

impl<'de> Deserialize<'de> for Locations {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let (mut others, mut last) = (Vec::new(), None::<ResourceUri>);
        each(input, |uri| others.extend(last.replace(uri)))?;
        let last = last.filter(|_| others.len() < MAX_DETAILS);
        last.map(|last| Self { others, last }).ok_or_else(|| D::Error::custom("must be 1 to 64"))
    }
}

/// What may be done: call, or list this.
enum Actions {
    Call,
    List(Vec<Listing>),
}

impl<'de> Deserialize<'de> for Actions {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let (mut calls, mut listings, mut is_twice) = (0_usize, Vec::new(), false);
        each(input, |method| match method {
            Method::Call => calls += 1,
            Method::List(listing) => {
                is_twice |= listings.contains(&listing);
                listings.push(listing);
            }
        })?;
        match (calls, is_twice) {
            (1, false) if listings.is_empty() => Ok(Self::Call),
            (0, false) if !listings.is_empty() => Ok(Self::List(listings)),
            _ => Err(D::Error::custom("must be to call, or to list one thing or more, each once")),
        }
    }
}

/// What can stand in `actions`.
enum Method {
    Call,
    List(Listing),
}

impl<'de> Deserialize<'de> for Method {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        text::read_by(input, |method| {
            let call = (method == CALL).then_some(Self::Call);
            call.or_else(|| Listing::parse(method).map(Self::List)).ok_or("is not known")
        })
    }
}

/// Gives each item of a list to `take`, without keeping them.
fn each<'de, T: Deserialize<'de>, D: Deserializer<'de>>(input: D, take: impl FnMut(T)) -> Result<(), D::Error> {
    input.deserialize_seq(Each(take, PhantomData))
}

struct Each<F, T>(F, PhantomData<T>);

impl<'de, T: Deserialize<'de>, F: FnMut(T)> Visitor<'de> for Each<F, T> {
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

impl Members {
    /// Puts there what they mean, the product of their arrays; or says what is wrong with them.
    fn put_into(self, permissions: &mut Vec<Permission>) -> Result<(), &'static str> {
        let Self { kind, locations, actions, tool, rules, additional, digest } = self;
        let (Some(Kind), Some(Locations { others, last }), Some(actions)) = (kind, locations, actions) else {
            return Err("lacks its type, its locations or its actions");
        };
        let listings = match actions {
            Actions::Call => {
                let action = Action::Call(tool.ok_or("lacks its identifier")?);
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
            return Err("lists, and says something of a tool");
        }
        for resource in others.into_iter().chain([last]) {
            permissions.extend(listings.iter().map(|listing| Permission::listing(resource.clone(), *listing)));
        }
        Ok(())
    }
}

/// A value of an argument.
struct AnyArg {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for AnyArg {
    type Value = Arg;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Arg, D::Error> {
        input.deserialize_any(self)
    }
}

/// A number of ours is canonical, so the double is the number.
fn number<E: Error>(number: Option<Number>) -> Result<Arg, E> {
    let decimal = number.and_then(|number| Decimal::parse(&number.to_string()));
    decimal.map(Arg::Number).ok_or_else(|| E::custom("no finite number"))
}

impl<'de> Visitor<'de> for AnyArg {
    type Value = Arg;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Arg, E> {
        Ok(Arg::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Arg, E> {
        number(Some(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Arg, E> {
        number(Some(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Arg, E> {
        number(Number::from_f64(value))
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
        let depth = below(self.depth)?;
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
                return Err(A::Error::custom("member stands twice"));
            }
            object.insert(name, members.next_value_seed(Self { depth: below(self.depth)? })?);
        }
        Ok(Arg::Object(object))
    }
}
