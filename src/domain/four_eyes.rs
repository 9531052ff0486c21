//! Acts of admins that need a second person.
//!
//! Until people can sign in, a person is an operator that the configuration file declares. Such an
//! operator was not made by another admin, so it has no waiting time. An admin that was registered
//! over REST, and the token that `errand admin token` issues, count as no person: one operator can
//! make either.

use ring::digest::{SHA256, digest};
use serde_json::Value;
use thiserror::Error;

use crate::domain::{
    authority::{Action, Authority},
    encode_base64url,
    id::{ClientId, ToolName},
    registry::{
        Block, BlockKind, Entry, ObjectKind, Registry, RegistryObject, Source, admin::Role, policy::Effect,
        resource::Resource,
    },
    secret::SecretTag,
};

/// `[four_eyes] required`: when acts need a second person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FourEyes {
    /// When the configuration file declares two operators or more.
    #[default]
    WithTwoOperators,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Why two parties may not carry out an act together.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PersonError {
    /// The party is no operator of the configuration file, or is blocked.
    #[error("the act needs two operators that the configuration file declares, and `{0}` is not one of them")]
    NotDeclared(ClientId),
    /// Both parties are the same.
    #[error("the admin who requests an act can't approve it; another operator must")]
    SamePerson,
    /// No other party can approve.
    #[error(
        "the act needs two operators that the configuration file declares and that are not blocked, and there is only one; declare another one there, or set `[four_eyes] required` to false"
    )]
    NoSecond,
}

impl FourEyes {
    /// Returns whether acts need a second person. A block of an operator over REST does not lower
    /// the number of declared operators, so that a block does not switch the rule off.
    #[must_use]
    pub fn is_in_effect(self, registry: &Registry) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::WithTwoOperators => {
                registry.entries().iter().filter(|entry| is_declared_operator(entry)).count() >= 2
            }
        }
    }
}

fn is_declared_operator(entry: &Entry) -> bool {
    entry.source == Source::File && is_active_operator(&entry.object)
}

/// Returns whether an object is an operator that is not disabled. Blocks are no part of an object.
#[must_use]
pub fn is_active_operator(object: &RegistryObject) -> bool {
    match object {
        RegistryObject::Admin(admin) => admin.role == Role::Operator && !admin.disabled,
        RegistryObject::Issuer(_) | RegistryObject::Agent(_) | RegistryObject::Resource(_) => false,
    }
}

/// Returns whether this is an operator that the configuration file declares, blocked or not.
#[must_use]
pub fn is_declared(registry: &Registry, id: &str) -> bool {
    registry.entry(ObjectKind::Admin, id).is_some_and(is_declared_operator)
}

/// Checks that a party counts as a person.
pub fn check_person(registry: &Registry, id: &ClientId) -> Result<(), PersonError> {
    let is_active = registry.client(id).is_some_and(|client| !client.is_disabled());
    if is_declared(registry, id.as_str()) && is_active { Ok(()) } else { Err(PersonError::NotDeclared(id.clone())) }
}

/// Checks that a party counts as a person, and that another one could approve what it requests.
pub fn check_requester(registry: &Registry, first: &ClientId) -> Result<(), PersonError> {
    check_person(registry, first)?;
    let is_second = |entry: &Entry| {
        entry.object.id().parse().is_ok_and(|second: ClientId| check_two_persons(registry, first, &second).is_ok())
    };
    if registry.entries().iter().any(is_second) { Ok(()) } else { Err(PersonError::NoSecond) }
}

/// Checks that two parties may carry out an act together: one requests it, the other approves it.
pub fn check_two_persons(registry: &Registry, first: &ClientId, second: &ClientId) -> Result<(), PersonError> {
    check_person(registry, first)?;
    if first == second {
        return Err(PersonError::SamePerson);
    }
    check_person(registry, second)
}

/// Returns whether putting an object needs a second person: it creates or changes an admin or an
/// issuer, it enables a disabled object, or it takes a protection away from a resource. To disable
/// an object, or to make an operator an auditor, a single admin is sufficient.
#[must_use]
pub fn put_needs_approval(registry: &Registry, new: &RegistryObject) -> bool {
    let old = registry.entry(new.kind(), new.id()).map(|entry| &entry.object);
    if old.is_some_and(|old| old.is_disabled() && !new.is_disabled()) {
        return true;
    }
    match (old, new) {
        (Some(RegistryObject::Resource(old)), RegistryObject::Resource(new)) => weakens(registry, old, new),
        (_, RegistryObject::Agent(_) | RegistryObject::Resource(_)) => false,
        (old, RegistryObject::Admin(_) | RegistryObject::Issuer(_)) => !old.is_some_and(|old| only_restricts(old, new)),
    }
}

fn only_restricts(old: &RegistryObject, new: &RegistryObject) -> bool {
    let mut restricted = old.clone();
    match (&mut restricted, new) {
        (RegistryObject::Admin(old), RegistryObject::Admin(new)) => {
            old.disabled |= new.disabled;
            if new.role == Role::Auditor {
                old.role = Role::Auditor;
            }
        }
        (RegistryObject::Issuer(old), RegistryObject::Issuer(new)) => old.disabled |= new.disabled,
        (_, _) => return false,
    }
    restricted == *new
}

/// Returns whether a change of a resource avoids a second person elsewhere: a destructive tool
/// would no longer count as one, fewer calls would need consent, break-glass grants would be
/// accepted, or accepted definitions of tools would be dropped because the resource moves, so that
/// the next import accepts others. A tool that is removed and comes back with its accepted
/// definition may have been a destructive one.
fn weakens(registry: &Registry, old: &Resource, new: &Resource) -> bool {
    let effects = [Effect::Read, Effect::Write, Effect::Destructive];
    let needs_less_consent = |effect| old.consent.is_required_for(effect) && !new.consent.is_required_for(effect);
    let is_destructive =
        |name: &ToolName| old.tools.iter().any(|tool| tool.name == *name && tool.effect == Effect::Destructive);
    let is_back = |name: &ToolName| {
        let has_definition =
            || registry.known_tools_of(&old.id).any(|(known, state)| known == name && state.accepted.is_some());
        old.tools.iter().all(|tool| tool.name != *name) && has_definition()
    };
    effects.into_iter().any(needs_less_consent)
        || (!old.break_glass.is_allow() && new.break_glass.is_allow())
        || new.tools.iter().any(|tool| tool.effect != Effect::Destructive && is_back(&tool.name))
        || new.tools.iter().any(|tool| tool.effect != Effect::Destructive && is_destructive(&tool.name))
        || (old.uri != new.uri && registry.known_tools_of(&old.id).any(|(_, known)| known.accepted.is_some()))
}

/// Returns whether lifting a block needs a second person. An admin may lift their own suspension:
/// that overrules no other person.
#[must_use]
pub fn lift_needs_approval(block: &Block, by: &str) -> bool {
    block.kind != BlockKind::Suspended || block.by != by
}

/// Returns the digest of an act, which an approval names.
#[must_use]
pub fn act_digest(act: &Value) -> String {
    encode_base64url(digest(&SHA256, act.to_string().as_bytes()).as_ref())
}

/// Returns the name of a stored secret in an act that replaces it.
#[must_use]
pub fn secret_digest(tag: &SecretTag) -> String {
    encode_base64url(digest(&SHA256, tag.as_bytes()).as_ref())
}

/// Returns whether a grant for a requester needs a second person: it covers a destructive tool, or
/// it names no authority and covers every tool, those that are registered later included.
#[must_use]
pub fn grant_needs_approval(registry: &Registry, authority: Option<&Authority>) -> bool {
    let Some(authority) = authority else { return true };
    registry.resources().any(|resource| {
        let is_covered = |name: &ToolName| {
            let names = |action: &Action| matches!(action, Action::Call(tool) if tool == name);
            authority.iter().any(|permission| permission.resource == resource.uri && names(&permission.action))
        };
        resource.tools.iter().any(|tool| tool.effect == Effect::Destructive && is_covered(&tool.name))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::domain::{
        id::ToolDigest,
        registry::{BlockSubject, tool::KnownTool},
        time::Timestamp,
    };

    fn admin(id: &str, source: Source, role: &str, disabled: bool) -> Entry {
        let body =
            json!({"id": id, "role": role, "authentication": {"method": "client_secret_basic"}, "disabled": disabled});
        Entry { object: RegistryObject::Admin(serde_json::from_value(body).unwrap()), source }
    }

    fn registry(entries: Vec<Entry>) -> Registry {
        Registry::build(1, entries, BTreeMap::new()).unwrap()
    }

    fn id(text: &str) -> ClientId {
        text.parse().unwrap()
    }

    #[test]
    fn two_declared_operators_are_two_persons() {
        let all = registry(vec![
            admin("ops", Source::File, "operator", false),
            admin("boss", Source::File, "operator", false),
            admin("made", Source::Api, "operator", false),
            admin("audit", Source::File, "auditor", false),
            admin("left", Source::File, "operator", true),
        ]);
        let not_declared = |name: &str| Err(PersonError::NotDeclared(id(name)));
        for (first, second, want) in [
            ("ops", "boss", Ok(())),
            ("boss", "ops", Ok(())),
            ("ops", "ops", Err(PersonError::SamePerson)),
            ("ops", "made", not_declared("made")),
            ("made", "ops", not_declared("made")),
            ("ops", "audit", not_declared("audit")),
            ("ops", "left", not_declared("left")),
            ("ops", "errand-bootstrap", not_declared("errand-bootstrap")),
            ("errand-bootstrap", "ops", not_declared("errand-bootstrap")),
        ] {
            assert_eq!(check_two_persons(&all, &id(first), &id(second)), want, "{first} {second}");
        }
        assert_eq!(check_requester(&all, &id("ops")), Ok(()));
        assert_eq!(check_requester(&all, &id("made")), not_declared("made"));
        let alone = registry(vec![
            admin("ops", Source::File, "operator", false),
            admin("made", Source::Api, "operator", false),
            admin("audit", Source::File, "auditor", false),
            admin("left", Source::File, "operator", true),
        ]);
        assert_eq!(check_requester(&alone, &id("ops")), Err(PersonError::NoSecond));
    }

    #[test]
    fn rule_is_in_effect_with_two_declared_operators() {
        let operator = |name: &str, source| admin(name, source, "operator", false);
        for (entries, want) in [
            (vec![], false),
            (vec![operator("a", Source::File)], false),
            (vec![operator("a", Source::File), operator("b", Source::Api)], false),
            (vec![operator("a", Source::File), admin("b", Source::File, "auditor", false)], false),
            (vec![operator("a", Source::File), admin("b", Source::File, "operator", true)], false),
            (vec![operator("a", Source::File), operator("b", Source::File)], true),
        ] {
            let registry = registry(entries);
            assert_eq!(FourEyes::WithTwoOperators.is_in_effect(&registry), want);
            assert!(FourEyes::Always.is_in_effect(&registry) && !FourEyes::Never.is_in_effect(&registry));
        }
    }

    #[test]
    fn one_admin_may_only_restrict_an_admin() {
        let made = |role: &str, disabled| admin("boss", Source::Api, role, disabled);
        let other_key = || {
            let body = json!({"id": "boss", "role": "operator", "authentication": {"method": "client_secret_post"},
                "disabled": true});
            Entry { object: RegistryObject::Admin(serde_json::from_value(body).unwrap()), source: Source::Api }
        };
        for (old, new, want) in [
            (None, made("operator", false), true),
            (None, made("auditor", true), true),
            (Some(made("operator", false)), made("operator", true), false),
            (Some(made("operator", false)), made("auditor", false), false),
            (Some(made("operator", false)), made("auditor", true), false),
            (Some(made("operator", false)), made("operator", false), false),
            (Some(made("operator", false)), other_key(), true),
            (Some(made("auditor", false)), made("operator", true), true),
            (Some(made("operator", true)), made("operator", false), true),
            (Some(made("operator", true)), made("auditor", false), true),
        ] {
            let all = registry(old.clone().into_iter().collect());
            assert_eq!(put_needs_approval(&all, &new.object), want, "{old:?} -> {new:?}");
        }
    }

    #[test]
    fn one_admin_may_only_restrict_an_issuer() {
        let issuer = |disabled: bool, prefix: &str| {
            let body = json!({"issuer": "https://login.example.com", "keys": "discovery",
                "audiences": ["https://sts.example.com"], "algorithms": ["RS256"], "token_types": ["access_token"], "subject_prefix": prefix,
                "disabled": disabled});
            Entry { object: RegistryObject::Issuer(serde_json::from_value(body).unwrap()), source: Source::Api }
        };
        for (old, new, want) in [
            (None, issuer(false, "a:"), true),
            (None, issuer(true, "a:"), true),
            (Some(issuer(false, "a:")), issuer(true, "a:"), false),
            (Some(issuer(false, "a:")), issuer(false, "a:"), false),
            (Some(issuer(false, "a:")), issuer(false, "b:"), true),
            (Some(issuer(false, "a:")), issuer(true, "b:"), true),
            (Some(issuer(true, "a:")), issuer(false, "a:"), true),
        ] {
            let all = registry(old.clone().into_iter().collect());
            assert_eq!(put_needs_approval(&all, &new.object), want, "{old:?} -> {new:?}");
        }
    }

    #[test]
    fn weaker_protection_of_a_resource_needs_approval() {
        let with = |changes: Value| {
            let mut body = json!({"id": "files", "uri": "https://files.example.com/mcp", "tools": [],
                "authentication": {"method": "client_secret_basic"}, "consent": "destructive"});
            body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            RegistryObject::Resource(serde_json::from_value(body).unwrap())
        };
        let resource = |uri: &str, consent: &str, tools: &[(&str, &str)]| {
            let tools = tools.iter().map(|(name, effect)| json!({"name": name, "scope": "s", "effect": effect}));
            with(json!({"uri": uri, "consent": consent, "tools": tools.collect::<Vec<_>>()}))
        };
        let (here, there) = ("https://files.example.com/mcp", "https://new.example.com/mcp");
        let old = resource(here, "destructive", &[("read", "read"), ("delete", "destructive")]);
        let all = |known: bool| {
            let accepted = known.then(|| ToolDigest::of_canonical("{}"));
            let known_tool = KnownTool { accepted, observed: None };
            let known_tools = BTreeMap::from([("read".parse().unwrap(), known_tool)]);
            registry(vec![Entry { object: old.clone(), source: Source::Api }])
                .with_tools(BTreeMap::from([(id("files"), known_tools)]))
        };
        let tools = [("read", "read"), ("delete", "destructive")];
        for (new, known, want) in [
            (old.clone(), true, false),
            (resource(here, "destructive", &[("read", "read")]), true, false),
            (resource(here, "required", &tools), true, false),
            (resource(here, "destructive", &[("read", "destructive"), ("delete", "destructive")]), true, false),
            (resource(here, "none", &tools), true, true),
            (resource(here, "destructive", &[("read", "read"), ("delete", "write")]), true, true),
            (resource(there, "destructive", &tools), true, true),
            (resource(there, "destructive", &tools), false, false),
        ] {
            assert_eq!(put_needs_approval(&all(known), &new), want, "{new:?}");
        }
        // A tool that was removed comes back; `read` has an accepted definition.
        let all_of = |old: &RegistryObject| {
            let known = KnownTool { accepted: Some(ToolDigest::of_canonical("{}")), observed: None };
            registry(vec![Entry { object: old.clone(), source: Source::Api }])
                .with_tools(BTreeMap::from([(id("files"), BTreeMap::from([("read".parse().unwrap(), known)]))]))
        };
        for (old, new, want) in [
            (with(json!({})), resource(here, "destructive", &[("read", "read")]), true),
            (with(json!({})), resource(here, "destructive", &[("read", "destructive")]), false),
            (with(json!({})), resource(here, "destructive", &[("other", "read")]), false),
            (with(json!({"break_glass": "refuse"})), with(json!({})), true),
            (with(json!({})), with(json!({"break_glass": "refuse"})), false),
            (with(json!({"disabled": true})), with(json!({})), true),
            (with(json!({})), with(json!({"disabled": true})), false),
        ] {
            assert_eq!(put_needs_approval(&all_of(&old), &new), want, "{old:?} -> {new:?}");
        }
        let agent = |disabled: bool| {
            let body =
                json!({"id": "planner", "authentication": {"method": "client_secret_basic"}, "disabled": disabled});
            RegistryObject::Agent(serde_json::from_value(body).unwrap())
        };
        for (old, new, want) in [(true, false, true), (false, true, false), (true, true, false), (false, false, false)]
        {
            let all = registry(vec![Entry { object: agent(old), source: Source::Api }]);
            assert_eq!(put_needs_approval(&all, &agent(new)), want, "{old} -> {new}");
        }
    }

    #[test]
    fn own_suspension_is_the_only_block_that_one_admin_lifts() {
        let block = |kind, by: &str| Block {
            subject: BlockSubject::AllAgents,
            kind,
            reason: "for the test".parse().unwrap(),
            by: by.to_owned(),
            at: Timestamp::EPOCH,
        };
        for (kind, by, want) in [
            (BlockKind::Suspended, "admin:ops", false),
            (BlockKind::Suspended, "admin:boss", true),
            (BlockKind::Blocked, "admin:ops", true),
            (BlockKind::Blocked, "admin:boss", true),
        ] {
            assert_eq!(lift_needs_approval(&block(kind, by), "admin:ops"), want, "{kind} {by}");
        }
    }
}
