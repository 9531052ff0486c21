//! Holds the description of the API to the code, and the code to it: every route stands in `openapi/errand.yaml` and
//! nothing else does, what stands there is whole, and `openapi/errand.json` says the same.
#![expect(clippy::unwrap_used, clippy::panic, clippy::string_slice, reason = "a test: to stop is how it says no")]

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

// ---- the file and the routes ----------------------------------------------------------------------------------------

#[test]
fn routes_and_openapi_paths_match() {
    let (served, described) = (served_routes(&sources()), described_routes(&description()));
    let undescribed: Vec<_> = served.difference(&described).collect();
    let unserved: Vec<_> = described.difference(&served).collect();
    assert!(undescribed.is_empty(), "routes that openapi/errand.yaml does not have: {undescribed:#?}");
    assert!(unserved.is_empty(), "in openapi/errand.yaml, and not in src/http: {unserved:#?}");
}

#[test]
fn routes_are_extracted_from_source() {
    let source = r#"
        fn api() { Router::new().route("/a", get(a::list).post(|x| x.get(1)))
            .merge(admin::objects("/k", Kind::Agent)).route(
                "/a/{id}", delete(a::remove)) }
        fn objects(path: &'static str) { r.route(path, get(list)).route(&format!("{path}/{{id}}"), put(move |y: Y| y)) }
        #[cfg(test)] mod tests { fn x() { r.route("/test", get(x)) } }
    "#;
    let routes = served_routes(&[source.to_owned()]);
    let wanted = ["DELETE /a/{id}", "GET /a", "GET /k", "POST /a", "PUT /k/{id}"];
    assert_eq!(routes.iter().collect::<Vec<_>>(), wanted);
}

/// What the router has, read from the source: axum keeps no list.
fn served_routes(sources: &[String]) -> Routes {
    let mut routes = Routes::new();
    let mut below = Vec::new();
    let mut folders = Vec::new();
    for source in sources {
        let source = source.split("#[cfg(test)]").next().unwrap();
        for other in [".route_service(", ".nest(", ".nest_service(", "MethodFilter"] {
            assert!(!source.contains(other), "teach tests/openapi.rs to read `{other}`");
        }
        for (at, _) in source.match_indices(".route(") {
            let call = arguments(&source[at + ".route(".len()..]);
            let (path, methods) = call.split_once(',').unwrap();
            let (path, methods) = (path.trim(), methods_of(methods.trim()));
            if let Some(path) = path.strip_prefix('"').and_then(|path| path.strip_suffix('"')) {
                routes.extend(methods.iter().map(|method| format!("{method} {path}")));
            } else if path == "path" {
                below.push((String::new(), methods));
            } else if let Some(rest) = path.strip_prefix("&format!(\"{path}") {
                let rest = rest.strip_suffix("\")").unwrap().replace("{{", "{").replace("}}", "}");
                below.push((rest, methods));
            } else {
                panic!("teach tests/openapi.rs to read the path `{path}`");
            }
        }
        for (at, _) in source.match_indices("objects(\"") {
            let path = &source[at + "objects(\"".len()..];
            folders.push(path[..path.find('"').unwrap()].to_owned());
        }
    }
    for folder in &folders {
        for (rest, methods) in &below {
            routes.extend(methods.iter().map(|method| format!("{method} {folder}{rest}")));
        }
    }
    assert!(routes.len() > 4, "the source is not read any more");
    routes
}

/// `get(a).post(b)`: the names, outside of the brackets.
fn methods_of(chain: &str) -> Vec<String> {
    let mut methods = Vec::new();
    let mut rest = chain;
    while !rest.is_empty() {
        let (name, after) = rest.split_once('(').unwrap();
        let name = name.trim().trim_start_matches('.');
        assert!(METHODS.contains(&name), "teach tests/openapi.rs to read `{name}(`");
        methods.push(name.to_uppercase());
        rest = after[arguments(after).len() + 1..].trim_start();
    }
    methods
}

/// What stands between a bracket that was opened before and the one that closes it.
fn arguments(text: &str) -> &str {
    let mut depth = 0_usize;
    for (at, sign) in text.char_indices() {
        match sign {
            '(' => depth += 1,
            ')' if depth == 0 => return &text[..at],
            ')' => depth -= 1,
            _ => {}
        }
    }
    panic!("a bracket that is not closed")
}

fn sources() -> Vec<String> {
    let files = fs::read_dir(root().join("src/http")).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|is| is == "rs")).map(|path| read(&path)).collect()
}

fn described_routes(description: &Value) -> Routes {
    operations(description).map(|(method, path, _)| format!("{} {path}", method.to_uppercase())).collect()
}

// ---- the file itself ------------------------------------------------------------------------------------------------

/// `ERRAND_WRITE_OPENAPI=1 cargo test --test openapi` writes the JSON anew.
#[test]
fn json_and_yaml_descriptions_match() {
    let (yaml, path) = (description(), root().join("openapi/errand.json"));
    #[expect(clippy::disallowed_methods, reason = "a test has no configuration")]
    let write = std::env::var("ERRAND_WRITE_OPENAPI").is_ok();
    if write {
        fs::write(&path, serde_json::to_string_pretty(&yaml).unwrap() + "\n").unwrap();
    }
    let json: Value = serde_json::from_str(&read(&path)).unwrap();
    assert!(json == yaml, "openapi/errand.json is out of date: ERRAND_WRITE_OPENAPI=1 cargo test --test openapi");
}

#[test]
fn references_resolve_and_components_are_used() {
    let description = description();
    let mut references = BTreeSet::new();
    collect_references(&description, &mut references);
    let lost: Vec<_> = references.iter().filter(|it| description.pointer(&it[1..]).is_none()).collect();
    assert!(lost.is_empty(), "lead nowhere: {lost:?}");
    let components = description["components"].as_object().unwrap();
    let all = components.iter().filter(|(kind, _)| *kind != "securitySchemes").flat_map(|(kind, named)| {
        named.as_object().unwrap().keys().map(move |name| format!("#/components/{kind}/{name}"))
    });
    let unused: Vec<_> = all.filter(|name| !references.contains(name)).collect();
    assert!(unused.is_empty(), "nothing leads to: {unused:?}");
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

#[test]
fn every_operation_is_complete() {
    let description = description();
    let tags: BTreeSet<&str> = string_set(&description["tags"], "name");
    let (mut ids, mut faults, mut seen) = (BTreeMap::new(), Vec::new(), 0);
    for (method, path, operation) in operations(&description) {
        seen += 1;
        let mut fault = |what: String| faults.push(format!("{method} {path}: {what}"));
        match operation["operationId"].as_str() {
            None => fault("no operationId".into()),
            Some(id) => {
                if let Some(other) = ids.insert(id, path) {
                    fault(format!("the operationId `{id}` is that of {other} too"));
                }
            }
        }
        let own = operation["tags"].as_array().map(Vec::as_slice).unwrap_or_default();
        if own.is_empty() || !own.iter().all(|tag| tags.contains(tag.as_str().unwrap())) {
            fault("no tag, or one that is not declared".into());
        }
        if operation["summary"].as_str().is_none_or(str::is_empty) {
            fault("no summary".into());
        }
        for status in statuses_to_expect(operation) {
            if operation["responses"].get(status).is_none() {
                fault(format!("does not say what {status} means"));
            }
        }
        for (status, response) in operation["responses"].as_object().unwrap() {
            let response = resolve_reference(&description, response);
            if response["headers"].get("X-Request-Id").is_none() {
                fault(format!("{status} comes without X-Request-Id"));
            }
            let is_error = status.starts_with(['4', '5']);
            let oauth = ["/oauth2/", "/.well-known/"].iter().any(|folder| path.starts_with(folder));
            let media = if oauth { "application/json" } else { "application/problem+json" };
            if is_error && path != "/oauth2/authorize" && response["content"].get(media).is_none() {
                fault(format!("{status} is not {media}"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(seen > 20, "saw only {seen} operations");
}

/// An API token, or a requester's own.
fn is_bearer(scheme: &Value) -> bool {
    scheme.get("apiToken").is_some() || scheme.get("requesterToken").is_some()
}

/// What can come follows from who may call and what is sent.
fn statuses_to_expect(operation: &Value) -> Vec<&'static str> {
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
        if body["content"].get("application/json").is_some() {
            expected.push("415");
        }
    }
    expected
}

#[test]
fn every_operation_declares_its_security() {
    let description = description();
    let scopes = ["errand:introspect", "errand:revocations", "errand:tasks", "errand:admin", "errand:audit"];
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
        // Whole: it says everything that can be said, so nothing is added when it is written again.
        assert_eq!(&serde_json::to_value(&object).unwrap()["body"], example, "{folder}");
        entries.push(Entry { object, source: Source::Api });
    }
    // The agent hands over to another one, which is not among the examples.
    let RegistryObject::Agent(planner) = entries[0].object.clone() else { panic!("the first is the agent") };
    let reader = Agent {
        id: planner.may_delegate_to[0].agent.clone(),
        may_delegate_to: Vec::new(),
        // One client of a provider is one agent.
        known_as: BTreeMap::new(),
        ..planner
    };
    entries.push(Entry { object: RegistryObject::Agent(reader), source: Source::Api });
    Registry::build(1, entries, BTreeMap::new()).unwrap();
}

// ---- reading --------------------------------------------------------------------------------------------------------

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

/// Where a `$ref` leads, if it is one.
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
