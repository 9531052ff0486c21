//! Client secrets as libraries send them: unencoded in HTTP Basic, or in the body.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    server::{Server, form, read_response, secret},
    support::TestStore,
};

/// A secret whose characters are changed by form encoding.
const ODD_SECRET: &str = "a+b/c+d0123456789+abcdefghijklmnopqrstuvwxyzABCD==";

const MORE: &str = r#"
[[agents]]
id = "odd"
authentication = { method = "client_secret_basic", secret_file = "odd.secret" }
access = [{ resource = "files", scopes = ["files:read"] }]

[[agents]]
id = "poster"
authentication = { method = "client_secret_post", secret_file = "assistant.secret" }
access = [{ resource = "files", scopes = ["files:read"] }]
"#;

async fn start(store: TestStore, more: &str) -> Server {
    Server::start_with(store, more).await
}

async fn secrets_are_accepted_as_libraries_send_them(store: TestStore) {
    let server = start(store, MORE).await;
    let grant = form(&[("grant_type", "client_credentials")]);
    let basic = async |client: &str, secret: &str| {
        let request = server.post("/oauth2/token").basic_auth(client, Some(secret)).form(&grant);
        read_response(request.send().await.unwrap()).await
    };
    let encoded = url::form_urlencoded::byte_serialize(ODD_SECRET.as_bytes()).collect::<String>();
    for (name, secret, want) in [
        ("encoded", encoded.as_str(), 200),
        ("as it is, as `curl -u` sends it", ODD_SECRET, 200),
        ("encoded twice", &url::form_urlencoded::byte_serialize(encoded.as_bytes()).collect::<String>(), 401),
        ("spaces for plus", &ODD_SECRET.replace('+', " "), 401),
        ("another", &ODD_SECRET.replace('a', "b"), 401),
        ("none", "", 401),
    ] {
        let (status, body) = basic("odd", secret).await;
        assert_eq!(status, want, "{name}: {body}");
    }
    // In the body, for a client that is registered for it, and for no other.
    let post = async |client: &str, secret: &str| {
        let mut body = grant.clone();
        body.extend(form(&[("client_id", client), ("client_secret", secret)]));
        let (status, body) = read_response(server.post("/oauth2/token").form(&body).send().await.unwrap()).await;
        (status.as_u16(), body["error"].clone())
    };
    let refused = (401, json!("invalid_client"));
    assert_eq!(post("poster", &secret("assistant")).await, (200, Value::Null));
    assert_eq!(post("poster", &secret("reader")).await, refused);
    assert_eq!(post("reader", &secret("reader")).await, refused);
    assert_eq!(post("unknown", &secret("reader")).await, refused);
    assert_eq!(basic("poster", &secret("assistant")).await.0, 401, "one method for each client");
    let mut both = grant.clone();
    both.extend(form(&[("client_id", "poster"), ("client_secret", &secret("assistant"))]));
    let request = server.post("/oauth2/token").basic_auth("reader", Some(secret("reader"))).form(&both);
    assert_eq!(read_response(request.send().await.unwrap()).await.0, 400, "two methods in one request");
    let mut nameless = grant.clone();
    nameless.extend(form(&[("client_secret", &secret("assistant"))]));
    assert_eq!(read_response(server.post("/oauth2/token").form(&nameless).send().await.unwrap()).await.0, 401);

    let methods = async |server: &Server| {
        let metadata = server.request(Method::GET, "/.well-known/oauth-authorization-server").send().await.unwrap();
        read_response(metadata).await.1["token_endpoint_auth_methods_supported"].clone()
    };
    assert_eq!(methods(&server).await, json!(["private_key_jwt", "client_secret_basic", "client_secret_post"]));
    server.stop().await;
}

async fn metadata_names_post_only_where_it_is_used(store: TestStore) {
    let server = start(store, "").await;
    let metadata = server.request(Method::GET, "/.well-known/oauth-authorization-server").send().await.unwrap();
    let metadata = read_response(metadata).await.1;
    assert_eq!(metadata["token_endpoint_auth_methods_supported"], json!(["private_key_jwt", "client_secret_basic"]));
    assert_eq!(
        metadata["introspection_endpoint_auth_methods_supported"],
        json!(["private_key_jwt", "client_secret_basic", "bearer"])
    );
    // An admin may register such a client, and give it a secret.
    let body = json!({"id": "late", "authentication": {"method": "client_secret_post"},
        "access": [{"resource": "files", "scopes": ["files:read"]}]});
    assert_eq!(server.admin(Method::PUT, "/agents/late", Some(body)).await.0, 201);
    let (status, body) = server.admin(Method::POST, "/clients/late/secret", Some(json!({}))).await;
    assert!(status.is_success(), "{body}");
    let secret = body["client_secret"].as_str().or(body["secret"].as_str()).unwrap();
    let request = form(&[("grant_type", "client_credentials"), ("client_id", "late"), ("client_secret", secret)]);
    assert_eq!(read_response(server.post("/oauth2/token").form(&request).send().await.unwrap()).await.0, 200);
    server.stop().await;
}

mod sqlite {
    #[tokio::test(flavor = "multi_thread")]
    async fn secrets_are_accepted_as_libraries_send_them() {
        super::secrets_are_accepted_as_libraries_send_them(crate::support::TestStore::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn metadata_names_post_only_where_it_is_used() {
        super::metadata_names_post_only_where_it_is_used(crate::support::TestStore::sqlite().await).await;
    }
}
