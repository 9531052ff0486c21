//! The API description matches the code. `openapi/errand.yaml` describes every route and no other,
//! each operation is complete, and `openapi/errand.json` has the same content.
#![expect(clippy::unwrap_used, clippy::string_slice, reason = "a panic fails the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use errand::domain::registry::{Entry, ObjectKind, Registry, RegistryObject, Source, client::Agent};
use serde_json::{Value, json};

/// A method and a path, such as `GET /v1/admin/keys`.
type Routes = BTreeSet<String>;

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

// ---- routes ------------------------------------------------------------------------------------

#[test]
fn routes_and_openapi_paths_match() {
    let served: Routes = errand::http::routes().iter().map(|(method, path)| format!("{method} {path}")).collect();
    let described = described_routes(&description());
    let undescribed: Vec<_> = served.difference(&described).collect();
    let unserved: Vec<_> = described.difference(&served).collect();
    assert!(undescribed.is_empty(), "routes without a description in openapi/errand.yaml: {undescribed:#?}");
    assert!(unserved.is_empty(), "described in openapi/errand.yaml without a route: {unserved:#?}");
}

#[test]
fn each_route_is_declared_once() {
    let routes = errand::http::routes();
    let distinct: BTreeSet<_> = routes.iter().collect();
    assert_eq!(distinct.len(), routes.len());
}

fn described_routes(description: &Value) -> Routes {
    operations(description).map(|(method, path, _)| format!("{} {path}", method.to_uppercase())).collect()
}

// ---- content -----------------------------------------------------------------------------------

/// `ERRAND_WRITE_OPENAPI=1 cargo test --test openapi` generates the JSON.
#[test]
fn json_and_yaml_descriptions_match() {
    let (yaml, path) = (description(), root().join("openapi/errand.json"));
    #[expect(clippy::disallowed_methods, reason = "a test has no configuration")]
    let write = std::env::var("ERRAND_WRITE_OPENAPI").is_ok();
    if write {
        fs::write(&path, serde_json::to_string_pretty(&yaml).unwrap() + "\n").unwrap();
    }
    let json: Value = serde_json::from_str(&read(&path)).unwrap();
    assert!(json == yaml, "openapi/errand.json is out of date; run ERRAND_WRITE_OPENAPI=1 cargo test --test openapi");
}

#[test]
fn references_resolve_and_components_are_used() {
    let description = description();
    let mut references = BTreeSet::new();
    collect_references(&description, &mut references);
    let dangling: Vec<_> = references.iter().filter(|it| description.pointer(&it[1..]).is_none()).collect();
    assert!(dangling.is_empty(), "dangling references: {dangling:?}");
    let components = description["components"].as_object().unwrap();
    let all = components.iter().filter(|(kind, _)| *kind != "securitySchemes").flat_map(|(kind, named)| {
        named.as_object().unwrap().keys().map(move |name| format!("#/components/{kind}/{name}"))
    });
    let unused: Vec<_> = all.filter(|name| !references.contains(name)).collect();
    assert!(unused.is_empty(), "unused components: {unused:?}");
}

fn collect_references(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            into.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
            object.values().for_each(|value| collect_references(value, into));
        }
        Value::Array(list) => list.iter().for_each(|value| collect_references(value, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A bare `n` is a boolean in YAML 1.1.
#[test]
fn required_members_are_names() {
    fn check(value: &Value) {
        if let Some(required) = value.get("required").and_then(Value::as_array) {
            assert!(required.iter().all(Value::is_string), "quote the names in {required:?}");
        }
        match value {
            Value::Object(members) => members.values().for_each(check),
            Value::Array(items) => items.iter().for_each(check),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    check(&description());
}

#[test]
fn every_operation_is_complete() {
    let description = description();
    let tags: BTreeSet<&str> = string_set(&description["tags"], "name");
    let (mut ids, mut problems, mut count) = (BTreeMap::new(), Vec::new(), 0);
    for (method, path, operation) in operations(&description) {
        count += 1;
        let mut report = |problem: String| problems.push(format!("{method} {path}: {problem}"));
        match operation["operationId"].as_str() {
            None => report("no operationId".into()),
            Some(id) => {
                if let Some(other) = ids.insert(id, path) {
                    report(format!("{other} has the operationId `{id}` too"));
                }
            }
        }
        let own = operation["tags"].as_array().map(Vec::as_slice).unwrap_or_default();
        if own.is_empty() || !own.iter().all(|tag| tags.contains(tag.as_str().unwrap())) {
            report("no tag, or an undeclared one".into());
        }
        if operation["summary"].as_str().is_none_or(str::is_empty) {
            report("no summary".into());
        }
        for status in statuses_to_expect(path, operation) {
            if operation["responses"].get(status).is_none() {
                report(format!("no response for {status}"));
            }
        }
        for (status, response) in operation["responses"].as_object().unwrap() {
            let response = resolve_reference(&description, response);
            if response["headers"].get("X-Request-Id").is_none() {
                report(format!("{status} has no X-Request-Id"));
            }
            let is_error = status.starts_with(['4', '5']);
            let oauth = ["/oauth2/", "/.well-known/"].iter().any(|folder| path.starts_with(folder));
            let media = if oauth { "application/json" } else { "application/problem+json" };
            if is_error && path != "/oauth2/authorize" && response["content"].get(media).is_none() {
                report(format!("{status} is not {media}"));
            }
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
    assert!(count > 20, "only {count} operations");
}

/// Returns whether the scheme is a bearer token: an API token or a requester's own token.
fn is_bearer(scheme: &Value) -> bool {
    scheme.get("apiToken").is_some() || scheme.get("requesterToken").is_some()
}

/// Returns the error statuses that follow from the security and the body of an operation. AuthZEN
/// has no 415: a body that is not JSON is a bad request.
fn statuses_to_expect(path: &str, operation: &Value) -> Vec<&'static str> {
    let mut expected = Vec::new();
    let security = operation["security"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !security.is_empty() {
        expected.extend(["401", "503"]);
    }
    if security.iter().any(is_bearer) {
        expected.push("403");
    }
    if let Some(body) = operation.get("requestBody") {
        expected.extend(["400", "413"]);
        if body["content"].get("application/json").is_some() && !path.starts_with("/access/") {
            expected.push("415");
        }
    }
    expected
}

#[test]
fn every_operation_declares_its_security() {
    let description = description();
    let scopes =
        ["errand:introspect", "errand:evaluate", "errand:revocations", "errand:tasks", "errand:admin", "errand:audit"];
    for (method, path, operation) in operations(&description) {
        let security = operation["security"].as_array().unwrap_or_else(|| panic!("{method} {path}: no security"));
        for (scheme, roles) in security.iter().flat_map(|scheme| scheme.as_object().unwrap()) {
            assert!(description["components"]["securitySchemes"].get(scheme).is_some(), "{method} {path}: {scheme}");
            for role in roles.as_array().unwrap() {
                assert!(scopes.contains(&role.as_str().unwrap()), "{method} {path}: {role}");
            }
        }
        assert_eq!(
            path.starts_with("/v1/") || path == "/revocations",
            security.iter().all(is_bearer) && !security.is_empty()
        );
    }
}

#[test]
fn registry_accepts_the_examples() {
    let description = description();
    let mut entries = Vec::new();
    for (folder, kind) in [
        ("agents", ObjectKind::Agent),
        ("resources", ObjectKind::Resource),
        ("issuers", ObjectKind::Issuer),
        ("admins", ObjectKind::Admin),
    ] {
        let put = &description["paths"][format!("/v1/admin/{folder}/{{id}}")]["put"];
        let example = &put["requestBody"]["content"]["application/json"]["example"];
        let object: RegistryObject = serde_json::from_value(json!({"kind": kind, "body": example})).unwrap();
        // Complete: serializing the object again adds no member.
        assert_eq!(&serde_json::to_value(&object).unwrap()["body"], example, "{folder}");
        entries.push(Entry { object, source: Source::Api });
    }
    // The agent delegates to another agent, which is not among the examples.
    let RegistryObject::Agent(planner) = entries[0].object.clone() else { panic!("the first example is not an agent") };
    let reader = Agent {
        id: planner.may_delegate_to[0].agent.clone(),
        may_delegate_to: Vec::new(),
        // One client id of a provider belongs to one agent.
        known_as: BTreeMap::new(),
        ..planner
    };
    entries.push(Entry { object: RegistryObject::Agent(reader), source: Source::Api });
    Registry::build(1, entries, BTreeMap::new()).unwrap();
}

// ---- helpers -----------------------------------------------------------------------------------

fn description() -> Value {
    serde_saphyr::from_str(&read(&root().join("openapi/errand.yaml"))).unwrap()
}

fn operations(description: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    description["paths"].as_object().unwrap().iter().flat_map(|(path, item)| {
        let all = item.as_object().unwrap().iter().filter(|(member, _)| *member != "parameters");
        all.map(move |(method, operation)| {
            assert!(METHODS.contains(&method.as_str()), "{path}: `{method}`");
            (method.as_str(), path.as_str(), operation)
        })
    })
}

/// Resolves a `$ref`; returns any other value unchanged.
fn resolve_reference<'a>(description: &'a Value, value: &'a Value) -> &'a Value {
    let reference = value.get("$ref").and_then(Value::as_str);
    reference.map_or(value, |reference| description.pointer(&reference[1..]).unwrap())
}

fn string_set<'a>(list: &'a Value, member: &str) -> BTreeSet<&'a str> {
    list.as_array().unwrap().iter().map(|one| one[member].as_str().unwrap()).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
