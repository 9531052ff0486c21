//! Argument constraints in authority: requested, granted, inherited, and only narrowed.

use serde_json::{Value, json};

use crate::server::{FILES, Server, decode_claims, form_with_changes};

on_both_stores!(constraints_are_inherited_and_only_narrowed, details_without_locations_apply_to_target);

fn details(constraints: &Value) -> String {
    json!([{"type": "mcp_tool", "locations": [FILES], "actions": ["tools/call"], "identifier": "read_file", "constraints": constraints}])
        .to_string()
}

async fn constraints_are_inherited_and_only_narrowed(server: Server) {
    let user = server.user_token(json!({}));
    let request = |constraints: &Value| {
        let details = details(constraints);
        form_with_changes(&server.exchange_form(&user), &[("scope", ""), ("authorization_details", &details)])
    };
    let wide = json!({"path": {"prefix": "/reports/"}, "limit": {"max": 100}});
    let (status, body) = server.post_as_planner("/oauth2/token", &request(&wide)).await;
    assert_eq!(status, 200, "{body}");
    let token = body["access_token"].as_str().unwrap();
    let claims = decode_claims(token);
    assert_eq!(claims["authorization_details"][0]["constraints"], wide);
    assert_eq!(claims.get("scope"), None, "a resource that reads only scopes must not infer more");
    assert_eq!(claims["task"]["authority_hash"].as_str().unwrap().len(), 51);
    let response = server.introspect(token).await;
    assert_eq!(response["authorization_details"], claims["authorization_details"]);

    for (constraints, want) in [
        (json!({"path": {"equals": "/reports/q3.md"}, "limit": {"max": 10}}), None),
        (json!({"path": {"prefix": "/reports/2026"}, "limit": {"min": 1, "max": 100}}), None),
        (json!({"path": {"prefix": "/reports/"}}), Some("invalid_authorization_details")),
        (json!({"path": {"prefix": "/"}, "limit": {"max": 10}}), Some("invalid_authorization_details")),
        (json!({"path": {"equals": "/reports/../etc"}, "limit": {"max": 10}}), Some("invalid_authorization_details")),
        (json!({"path": {"equals": "/reports/a"}, "limit": {"max": 101}}), Some("invalid_authorization_details")),
        (json!({"path": {"regex": ".*"}}), Some("invalid_authorization_details")),
        (json!({"pa\u{0}th": {"any": true}}), Some("invalid_authorization_details")),
    ] {
        let narrower = details(&constraints);
        let form = form_with_changes(
            &server.delegation_form(token, "reader"),
            &[("scope", ""), ("authorization_details", &narrower)],
        );
        let (status, body) = server.post_as_planner("/oauth2/token", &form).await;
        match want {
            None => {
                assert_eq!(status, 200, "{constraints}: {body}");
                assert_eq!(body["authorization_details"][0]["constraints"], constraints);
            }
            Some(code) => assert_eq!((status.as_u16(), &body["error"]), (400, &json!(code)), "{constraints}: {body}"),
        }
    }
    let by_scope = server.delegation_form(token, "reader");
    let (status, body) = server.post_as_planner("/oauth2/token", &by_scope).await;
    assert_eq!(
        (status.as_u16(), &body["error"]),
        (400, &json!("invalid_scope")),
        "a scope covers every argument: {body}"
    );
    server.stop().await;
}

/// Details without `locations` apply to the target resource: named by its URI, by its name, or
/// implied.
async fn details_without_locations_apply_to_target(server: Server) {
    let detail_with = |more: Value| {
        let mut detail = json!({"type": "mcp_tool", "actions": ["tools/call"], "identifier": "read_file"});
        detail.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!([detail]).to_string()
    };
    let request = |changes: &[(&str, &str)], details: &str| {
        let form = server.exchange_form(&server.user_token(json!({})));
        form_with_changes(&form_with_changes(&form, &[("scope", ""), ("authorization_details", details)]), changes)
    };
    let (by_name, without_target) = ([("resource", ""), ("audience", "files")], [("resource", "")]);
    let token = server.issue_token("planner", &request(&[], &detail_with(json!({})))).await;
    let want = &decode_claims(&token)["authorization_details"];
    assert_eq!(want[0]["locations"], json!([FILES]));
    let named = server.issue_token("planner", &request(&by_name, &detail_with(json!({})))).await;
    assert_eq!(&decode_claims(&named)["authorization_details"], want);
    let handed_over = form_with_changes(
        &server.delegation_form(&token, "reader"),
        &[("scope", ""), ("authorization_details", &detail_with(json!({})))],
    );
    assert_eq!(&decode_claims(&server.issue_token("planner", &handed_over).await)["authorization_details"], want);

    let wrong = "invalid_authorization_details";
    let missing = "authorization_details[0].locations: missing, and the request names no resource";
    let txn = [
        ("resource", ""),
        ("audience", "example.com"),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:txn_token"),
    ];
    for (changes, more, error, description) in [
        (&by_name[..], json!({"constraints": {"p": {"equals": "a\u{0}b"}}}), wrong, "must not contain a NUL"),
        (&by_name, json!({"color": "red"}), wrong, "unknown member"),
        (&by_name, json!({"locations": ["https://notes.example.com/mcp"]}), wrong, "exceeds what"),
        (&without_target, json!({}), "invalid_target", "name one `resource`"),
        (&without_target, json!({"color": "red"}), "invalid_target", "name one `resource`"),
        (&txn, json!({}), wrong, missing),
    ] {
        let (status, body) = server.request_token_as("planner", &request(changes, &detail_with(more.clone()))).await;
        let text = body["error_description"].as_str().unwrap_or_default();
        assert!(status == 400 && body["error"] == error && text.contains(description), "{changes:?} {more}: {body}");
    }
    server.stop().await;
}
