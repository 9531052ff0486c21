//! Malformed requests at every endpoint that accepts a form or JSON.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    server::{
        FILES, Form, JWT_BEARER, Server, TOKEN_EXCHANGE, TXN_TOKEN, form, form_with_changes, read_response, secret,
    },
    transport::injection::{Row, check_rows},
};

on_both_stores!(
    malformed_forms_are_rejected,
    malformed_parameters_are_rejected,
    malformed_targets_and_scopes_are_rejected,
    malformed_authorization_details_are_rejected,
    malformed_json_bodies_are_rejected,
    unknown_paths_and_methods_are_rejected
);

const INVALID: (u16, &str) = (400, "invalid_request");
const MALFORMED: (u16, &str) = (400, "malformed");

impl Server {
    fn request_as_reader(&self, path: &str) -> reqwest::RequestBuilder {
        self.post(path).basic_auth("reader", Some(secret("reader")))
    }

    /// Returns a valid exchange form of the reader. It has no assertion, so it can be sent
    /// repeatedly.
    async fn reader_form(&self) -> Form {
        let good = self.exchange_form(&self.user_token(json!({"client_id": "reader-client"})));
        self.issue_token("reader", &good).await;
        good
    }
}

async fn malformed_forms_are_rejected(server: Server) {
    let mut rows = Vec::new();
    for path in ["/oauth2/token", "/oauth2/introspect", "/oauth2/revoke"] {
        let typed = |kind: &str, body: Vec<u8>| server.request_as_reader(path).header("content-type", kind).body(body);
        let good = || b"token=some-long-token&grant_type=client_credentials".to_vec();
        for kind in [
            "application/json",
            "text/plain",
            "multipart/form-data; boundary=some-boundary",
            "application/x-www-form-urlencoded; charset=iso-8859-1",
            "application/x-www-form-urlencoded-and-more",
        ] {
            let request = typed(kind, good());
            rows.push(Row {
                name: format!("{path} {kind}"),
                request,
                sent: vec!["some-long-token".into()],
                expected: INVALID,
            });
        }
        let bare = server.request_as_reader(path).body(good());
        rows.push(Row { name: format!("{path} no type"), request: bare, sent: Vec::new(), expected: INVALID });
        let many = |n: usize| (0..n).map(|n| format!("p{n}=1")).collect::<Vec<_>>().join("&");
        for (name, body, expected) in [
            ("1 MiB", format!("token={}", "x".repeat(1024 * 1024)).into_bytes(), (413, "invalid_request")),
            ("just over 64 KiB", format!("token={}", "x".repeat(64 * 1024)).into_bytes(), (413, "invalid_request")),
            ("100,000 parameters", many(100_000).into_bytes(), (413, "invalid_request")),
            ("7,000 parameters", many(7_000).into_bytes(), INVALID),
            ("65 parameters", many(65).into_bytes(), INVALID),
            ("an empty parameter 20,000 times", "a=&".repeat(20_000).into_bytes(), INVALID),
            ("not UTF-8", b"token=some-long-token\xff".to_vec(), INVALID),
            ("not UTF-8, encoded", b"token=some-long-token%ff".to_vec(), INVALID),
            ("an overlong slash", b"token=some-long-token%c0%af".to_vec(), INVALID),
            ("a truncated escape", b"token=some-long-token%4".to_vec(), INVALID),
            ("an invalid escape", b"token=some-long-token%zz".to_vec(), INVALID),
            ("a duplicate parameter", b"token=some-long-token&token=some-long-token".to_vec(), INVALID),
            ("a duplicate, escaped", b"token=some-long-token&%74oken=another-long-token".to_vec(), INVALID),
            ("a duplicate, empty", b"token=some-long-token&token=".to_vec(), INVALID),
            (
                "a duplicate of an unknown parameter",
                b"token=some-long-token&odd=first-value&odd=second-value".to_vec(),
                INVALID,
            ),
        ] {
            rows.push(Row::raw(format!("{path} {name}"), server.request_as_reader(path), body, expected));
        }
    }
    check_rows(rows).await;
    // Unknown parameters and parameters without a value are ignored (RFC 6749 §3.2).
    let odd = form_with_changes(&server.reader_form().await, &[("odd", "one"), ("client_secret", "")]);
    let (status, body) = server.post_as("reader", "/oauth2/token", &odd).await;
    assert_eq!(status, 200, "{body}");
    let (status, _) = server.post_as("reader", "/oauth2/token", &form(&[("grant_type", "client_credentials")])).await;
    assert_eq!(status, 200, "the server still answers");
    server.stop().await;
}

async fn malformed_parameters_are_rejected(server: Server) {
    let good = server.reader_form().await;
    let grant = form(&[("grant_type", "client_credentials")]);
    let jwt = server.user_token(json!({}));
    let nested = |depth: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    let rows: Vec<(&str, &str, String, (u16, &str))> = vec![
        ("no grant_type", "grant_type", String::new(), INVALID),
        ("an unknown grant", "grant_type", "urn:example:grant-of-mine".into(), (400, "unsupported_grant_type")),
        ("a password", "grant_type", "password".into(), (400, "unsupported_grant_type")),
        ("a code", "grant_type", "authorization_code".into(), (400, "unsupported_grant_type")),
        ("grant_type in upper case", "grant_type", TOKEN_EXCHANGE.to_uppercase(), (400, "unsupported_grant_type")),
        ("no subject_token", "subject_token", String::new(), INVALID),
        ("no subject_token_type", "subject_token_type", String::new(), INVALID),
        ("an unknown type", "subject_token_type", "urn:example:some-token-type".into(), INVALID),
        ("a refresh token", "subject_token_type", "urn:ietf:params:oauth:token-type:refresh_token".into(), INVALID),
        ("SAML", "subject_token_type", "urn:ietf:params:oauth:token-type:saml2".into(), INVALID),
        ("self-signed", "subject_token_type", "urn:ietf:params:oauth:token-type:self_signed".into(), INVALID),
        ("unsigned", "subject_token_type", "urn:ietf:params:oauth:token-type:unsigned_json".into(), INVALID),
        ("another type", "subject_token_type", TXN_TOKEN.into(), INVALID),
        ("an actor_token without type", "actor_token", jwt, INVALID),
        ("an actor_token_type alone", "actor_token_type", TXN_TOKEN.into(), INVALID),
        ("an unknown requested type", "requested_token_type", "urn:example:some-token-type".into(), INVALID),
        (
            "a requested refresh token",
            "requested_token_type",
            "urn:ietf:params:oauth:token-type:refresh_token".into(),
            INVALID,
        ),
        ("no purpose", "purpose", String::new(), INVALID),
        ("a blank purpose", "purpose", " \u{3000} ".into(), INVALID),
        ("a long purpose", "purpose", "the report ".repeat(50), INVALID),
        ("a purpose of two lines", "purpose", "the quarterly\nreport-of-mine".into(), INVALID),
        ("a purpose with NUL", "purpose", "the quarterly\0report-of-mine".into(), INVALID),
        ("an invalid task id", "task_id", "not-a-task-id-at-all".into(), INVALID),
        ("a task id in upper case", "task_id", "01970000-0000-7000-8000-00000000ABCD".into(), INVALID),
        ("an unknown task", "task_id", "01970000-0000-7000-8000-00000000abcd".into(), INVALID),
        ("a deadline of zero", "task_deadline", "0".into(), INVALID),
        ("a negative deadline", "task_deadline", "-100000000".into(), INVALID),
        ("a deadline with a sign", "task_deadline", "+100000000".into(), INVALID),
        ("a fractional deadline", "task_deadline", "12345678.5".into(), INVALID),
        ("a deadline beyond bounds", "task_deadline", "99999999999999999999".into(), INVALID),
        ("a deadline in a year", "task_deadline", "31536000".into(), INVALID),
        ("a lifetime of zero", "expires_in", "0".into(), INVALID),
        ("a lifetime in words", "expires_in", "five-minutes".into(), INVALID),
        ("a lifetime in other digits", "expires_in", "١٢٣٤٥٦٧٨".into(), INVALID),
        ("an invalid actor", "requested_actor", "no agent of this name".into(), INVALID),
        ("an unknown actor", "requested_actor", "unknown-actor".into(), (400, "actor_unauthorized")),
        ("a disallowed actor", "requested_actor", "stranger".into(), (400, "actor_unauthorized")),
        ("details that are not an object", "request_details", "[\"some-detail\"]".into(), INVALID),
        ("details that are not JSON", "request_details", "{some-detail}".into(), INVALID),
        ("details with a duplicate member", "request_details", r#"{"a":"some-detail","a":2}"#.into(), INVALID),
        ("details 9 levels deep", "request_details", nested(8), INVALID),
        ("details 10,000 levels deep", "request_details", nested(10_000), INVALID),
        ("details with NUL", "request_details", r#"{"a":"some\u0000detail"}"#.into(), INVALID),
        ("details of 5 KiB", "request_details", format!(r#"{{"a":"{}"}}"#, "x".repeat(5 * 1024)), INVALID),
        ("details with 1e400", "request_details", r#"{"a":1e400}"#.into(), INVALID),
        ("context that is not an object", "request_context", "\"some-context\"".into(), INVALID),
    ];
    let rows = rows.into_iter().map(|(name, parameter, value, expected)| {
        Row::form(
            name,
            server.request_as_reader("/oauth2/token"),
            &form_with_changes(&good, &[(parameter, &value)]),
            expected,
        )
    });
    let mut rows = rows.collect::<Vec<_>>();
    for (name, scope) in [
        ("a scope for admins", "errand:admin"),
        ("a scope of a resource", "files:read-everything"),
        ("a scope with quotes", "\"errand:tasks\""),
        ("a scope with two spaces", "errand:tasks  errand:admin"),
    ] {
        let form = form_with_changes(&grant, &[("scope", scope)]);
        rows.push(Row::form(name, server.request_as_reader("/oauth2/token"), &form, (400, "invalid_scope")));
    }
    for (client, path) in [("reader", "/oauth2/revoke"), ("files", "/oauth2/introspect")] {
        let request = server.post(path).basic_auth(client, Some(secret(client)));
        rows.push(Row::form(
            format!("{path} no token"),
            request,
            &form(&[("token_type_hint", "access_token")]),
            INVALID,
        ));
    }
    check_rows(rows).await;
    server.stop().await;
}

async fn malformed_targets_and_scopes_are_rejected(server: Server) {
    let good = server.reader_form().await;
    let target = (400, "invalid_target");
    let mut rows = Vec::new();
    for (name, resource) in [
        ("with a fragment", "https://files.example.com/mcp#some-fragment"),
        ("with an empty fragment", "https://files.example.com/mcp#"),
        ("unknown", "https://unknown.example.com/mcp"),
        ("below", "https://files.example.com/mcp/deeper"),
        ("with a slash", "https://files.example.com/mcp/"),
        ("without a path", "https://files.example.com"),
        ("of another case", "https://files.example.com/MCP"),
        ("on another port", "https://files.example.com:8443/mcp"),
        ("by http", "http://files.example.com/mcp"),
        ("with a user", "https://alice@files.example.com/mcp"),
        ("with a query", "https://files.example.com/mcp?some=query"),
        ("with dots", "https://files.example.com/other/../../mcp/x"),
        ("relative", "/mcp-and-more"),
        ("not a URI", "files and more"),
        ("two in one", "https://files.example.com/mcp https://notes.example.com/mcp"),
        ("of another scheme", "javascript:alert(document.cookie)"),
    ] {
        let form = form_with_changes(&good, &[("resource", resource)]);
        rows.push(Row::form(format!("resource {name}"), server.request_as_reader("/oauth2/token"), &form, target));
    }
    for (name, changes) in [
        ("none", vec![("resource", "")]),
        ("audience unknown", vec![("resource", ""), ("audience", "unknown-resource")]),
        ("audience an agent", vec![("resource", ""), ("audience", "reader")]),
        ("audience a URI", vec![("resource", ""), ("audience", "https://elsewhere.example.com")]),
        ("audience another", vec![("audience", "notes")]),
        ("a domain for a resource", vec![("resource", ""), ("audience", "example.com")]),
        (
            "a domain of another",
            vec![("resource", ""), ("audience", "other.example"), ("requested_token_type", TXN_TOKEN)],
        ),
        ("a domain and a resource", vec![("audience", "example.com"), ("requested_token_type", TXN_TOKEN)]),
    ] {
        rows.push(Row::form(
            name,
            server.request_as_reader("/oauth2/token"),
            &form_with_changes(&good, &changes),
            target,
        ));
    }
    for name in ["resource", "audience"] {
        let mut form = good.clone();
        form.extend([
            (name.to_owned(), FILES.to_owned()),
            (name.to_owned(), "https://notes.example.com/mcp".to_owned()),
        ]);
        rows.push(Row::form(format!("two of {name}"), server.request_as_reader("/oauth2/token"), &form, target));
    }
    let scopes = (0..65).map(|n| format!("files:read{n}")).collect::<Vec<_>>().join(" ");
    for (name, scope) in [
        ("with quotes", "\"files:read\"".to_owned()),
        ("with a backslash", "files:read\\files:write".to_owned()),
        ("with two spaces", "files:read  files:write".to_owned()),
        ("with a tab", "files:read\tfiles:write".to_owned()),
        ("not ASCII", "files:réad".to_owned()),
        ("65 of them", scopes),
        ("too long", "files:read".repeat(20)),
        ("unknown", "files:read files:everything".to_owned()),
        ("beyond the requester", "files:delete".to_owned()),
        ("beyond the agent", "files:write".to_owned()),
        ("of another resource", "notes:read".to_owned()),
        ("an asterisk", "*".to_owned()),
        ("another case", "FILES:READ".to_owned()),
        ("empty", String::new()),
    ] {
        let form = form_with_changes(&good, &[("scope", &scope)]);
        rows.push(Row::form(
            format!("scope {name}"),
            server.request_as_reader("/oauth2/token"),
            &form,
            (400, "invalid_scope"),
        ));
    }
    check_rows(rows).await;
    server.stop().await;
}

async fn malformed_authorization_details_are_rejected(server: Server) {
    let good = server.reader_form().await;
    let mut rows = Vec::new();
    let detail = |more: Value| {
        let mut detail = json!({"type": "mcp_tool", "actions": ["tools/call"], "identifier": "read_file"});
        detail.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!([detail]).to_string()
    };
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for (name, details) in [
        ("10,000 levels deep", deep(8_000)),
        ("9 levels deep", format!(r#"[{{"type":"mcp_tool","x":{}}}]"#, deep(8))),
        ("10,000 open brackets", "[".repeat(10_000)),
        ("17 KiB", format!("[{}]", " ".repeat(17 * 1024))),
        ("not JSON", "read_file-please".into()),
        ("an object", r#"{"type":"mcp_tool-of-mine"}"#.into()),
        ("none", "[]".into()),
        ("65 of them", format!("[{}]", vec!["{\"type\":\"mcp_tool\"}"; 65].join(","))),
        ("a duplicate member", r#"[{"type":"mcp_tool","type":"payment_initiation"}]"#.into()),
        ("another type", r#"[{"type":"payment_initiation"}]"#.into()),
        ("a type of a number", r#"[{"type":1234567890}]"#.into()),
        ("another action", detail(json!({"actions": ["prompts/get"]}))),
        ("no tool", detail(json!({"identifier": ""}))),
        ("a tool with a space", detail(json!({"identifier": "read_file other"}))),
        ("an unknown tool", detail(json!({"identifier": "format_disk"}))),
        ("a disallowed tool", detail(json!({"identifier": "delete_file"}))),
        ("a location with a fragment", detail(json!({"locations": ["https://files.example.com/mcp#fragment"]}))),
        ("an unknown location", detail(json!({"locations": ["https://unknown.example.com/mcp"]}))),
        (
            "another location",
            detail(json!({"locations": ["https://notes.example.com/mcp"], "identifier": "read_notes"})),
        ),
        ("an unknown member", detail(json!({"privileges": "all-of-them"}))),
        ("1e400", r#"[{"type":"mcp_tool","x":1e400}]"#.into()),
    ] {
        let form = form_with_changes(&good, &[("authorization_details", &details)]);
        let expected = (400, "invalid_authorization_details");
        rows.push(Row::form(format!("details {name}"), server.request_as_reader("/oauth2/token"), &form, expected));
    }
    check_rows(rows).await;
    server.stop().await;
}

/// Creates a request with a JSON body.
fn json_row(
    name: &str,
    request: reqwest::RequestBuilder,
    body: impl Into<String>,
    expected: (u16, &'static str),
) -> Row {
    let body = body.into();
    let sent = vec![body.clone()];
    let request = request.header("content-type", "application/json").body(body);
    Row { name: name.into(), request, sent, expected }
}

async fn malformed_json_bodies_are_rejected(server: Server) {
    let token = server.api_token("ops", "errand:admin").await;
    let mut rows = Vec::new();
    for (method, path) in [
        (Method::POST, "/v1/admin/revocations"),
        (Method::POST, "/v1/admin/grants"),
        (Method::PUT, "/v1/admin/agents/new-one"),
        (Method::PUT, "/v1/admin/resources/new-one"),
        (Method::PUT, "/v1/admin/issuers/https%3A%2F%2Fnew.example"),
        (Method::PUT, "/v1/admin/admins/new-one"),
    ] {
        let request = || server.request(method.clone(), path).bearer_auth(&token);
        for (name, body, expected) in [
            ("empty body", String::new(), MALFORMED),
            ("not JSON", "some-words-of-mine".into(), MALFORMED),
            ("an array", "[\"some-words-of-mine\"]".into(), MALFORMED),
            ("a string", "\"some-words-of-mine\"".into(), MALFORMED),
            ("empty object", "{}".into(), MALFORMED),
            ("a duplicate member", r#"{"kind":"task","kind":"token-of-mine"}"#.into(), MALFORMED),
            ("an unknown member", r#"{"some-words-of-mine":"more-words-of-mine"}"#.into(), MALFORMED),
            // A message of serde that quotes sent text must not be mistaken for an expectation.
            ("a member that expects", r#"{"expected some-words-of-mine":1}"#.into(), MALFORMED),
            ("a kind that expects", r#"{"kind":"expected some-words-of-mine, expected more"}"#.into(), MALFORMED),
            ("a method that expects", r#"{"id":"new-one","authentication":{"method":"expected some-words-of-mine"}}"#.into(), MALFORMED),
            ("a method with a member that expects", r#"{"id":"new-one","authentication":{"method":"client_secret_basic","`, expected some-words-of-mine":1}}"#.into(), MALFORMED),
            ("an id that expects", r#"{"id":"expected some-words-of-mine","kind":"task","reason":"x"}"#.into(), MALFORMED),
            ("a role that expects", r#"{"id":"new-one","role":"expected some-words-of-mine"}"#.into(), MALFORMED),
            ("a number for a name", r#"{"id":1234567890,"kind":"task","reason":"x"}"#.into(), MALFORMED),
            ("1e400", r#"{"id":1e400}"#.into(), MALFORMED),
            ("10,000 levels deep", format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)), MALFORMED),
            ("20 levels deep", format!(r#"{{"a":{}{}}}"#, "[".repeat(20), "]".repeat(20)), MALFORMED),
            ("1 MiB", format!("\"{}\"", "x".repeat(1024 * 1024)), (413, "too_large")),
        ] {
            rows.push(json_row(&format!("{path} {name}"), request(), body, expected));
        }
        let request = request().header("content-type", "text/plain").body("{}");
        rows.push(Row {
            name: format!("{path} text"),
            request,
            sent: Vec::new(),
            expected: (415, "unsupported_media_type"),
        });
    }
    let long = "x".repeat(256);
    for key in ["", &long] {
        let request = server.post("/v1/admin/revocations").bearer_auth(&token).header("idempotency-key", key);
        let body = r#"{"kind":"agent","id":"reader","reason":"for a test"}"#;
        rows.push(json_row("an invalid idempotency key", request, body, MALFORMED));
    }
    let mut lists = [
        "tokens?task=not-a-task-id",
        "tasks?state=some-other-state",
        "audit?from=yesterday-noon",
        "tokens?alive=maybe-so",
        "tasks?subject=alice-the-first",
        "audit?issuer=https://login.example.com",
        "tokens?issuer=not-a-url&subject=alice-the-first",
    ]
    .map(str::to_owned)
    .to_vec();
    for query in [
        "unknown-name=some-value",
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=one-hundred",
        "limit=1&limit=2",
        "after=not-a-cursor-of-ours",
        "after=%00%01%02%03",
        "after=%ff",
        "after=' OR 1=1 --",
    ] {
        for list in ["tokens", "tasks", "revocations", "audit", "grants"] {
            lists.push(format!("{list}?{query}"));
        }
    }
    let reader = server.api_token("audit", "errand:audit").await;
    rows.extend(lists.into_iter().map(|list| {
        let request = server.request(Method::GET, &format!("/v1/admin/{list}")).bearer_auth(&reader);
        let sent = list.split(['?', '&', '=']).skip(2).map(str::to_owned).collect();
        Row { name: list, request, sent, expected: MALFORMED }
    }));
    check_rows(rows).await;
    server.stop().await;
}

async fn unknown_paths_and_methods_are_rejected(server: Server) {
    let mut rows = Vec::new();
    for path in ["/oauth2/token", "/oauth2/introspect", "/oauth2/revoke"] {
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            let request = server.request(method, &format!("{path}?token=some-long-token"));
            rows.push(Row {
                name: path.into(),
                request,
                sent: vec!["some-long-token".into()],
                expected: (405, "invalid_request"),
            });
        }
    }
    for path in
        ["/some-unknown-path", "/oauth2/token/some-more", "/v1/admin/some-unknown-path", "/docs/..%2f..%2fetc%2fpasswd"]
    {
        let request = server.request(Method::GET, path);
        let code = if path.starts_with("/oauth2/") { "invalid_request" } else { "not_found" };
        rows.push(Row { name: path.into(), request, sent: vec![path.into()], expected: (404, code) });
    }
    // Credentials in the query are ignored.
    let query =
        format!("/oauth2/token?client_assertion_type={JWT_BEARER}&client_assertion={}", server.assertion(json!({})));
    let request = server.post(&query);
    rows.push(Row::form(
        "credentials in the query",
        request,
        &form(&[("grant_type", "client_credentials")]),
        (401, "invalid_client"),
    ));
    check_rows(rows).await;
    let answer =
        server.post("/oauth2/token").header("x-request-id", "some id\tof mine").form(&form(&[])).send().await.unwrap();
    assert!(!answer.headers()["x-request-id"].to_str().unwrap().contains("mine"), "an invalid request id is replaced");
    let (status, _) = read_response(answer).await;
    assert_eq!(status, 401);
    server.stop().await;
}
