//! Headers: those of every response, hosts, cross-origin reads, source addresses, and an issuer
//! with a path.

use std::net::SocketAddr;

use errand::http::{
    AppState, ConnectionLimits, ForwardedHeader, HttpSettings, Listener, TrustedProxies, router, serve,
};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

use crate::{
    server::{Server, form, read_response, secret, wait_until},
    support::TestStore,
};

on_both_stores!(
    every_response_has_security_headers,
    request_with_two_hosts_is_refused,
    public_documents_are_readable_from_any_origin,
    audit_records_name_the_source_address
);

/// Starts another listener for the same service.
async fn start_listener(
    server: &Server,
    settings: HttpSettings,
    proxies: TrustedProxies,
) -> (SocketAddr, JoinHandle<()>) {
    let app = AppState::new(server.application.service.clone());
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), None).await.unwrap();
    let listener = listener.with_limits(ConnectionLimits { proxies, ..ConnectionLimits::default() });
    let address = listener.local_addr().unwrap();
    (address, tokio::spawn(serve(listener, router(app, settings), std::future::pending())))
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

async fn every_response_has_security_headers(server: Server) {
    let settings = HttpSettings { is_tls: true, ..HttpSettings::default() };
    let (https, serving) = start_listener(&server, settings, TrustedProxies::default()).await;
    for (method, path) in [
        (Method::GET, "/oauth2/jwks"),
        (Method::GET, "/docs"),
        (Method::GET, "/healthz"),
        (Method::GET, "/metrics"),
        (Method::GET, "/unknown"),
        (Method::PUT, "/oauth2/token"),
        (Method::POST, "/oauth2/token"),
        (Method::GET, "/v1/admin/agents"),
        (Method::GET, "/v1/tasks"),
    ] {
        for (url, hsts) in [(server.url.clone(), None), (format!("http://{https}"), Some("max-age=31536000"))] {
            let response = server.http.request(method.clone(), format!("{url}{path}")).send().await.unwrap();
            for (name, value) in [
                ("x-content-type-options", Some("nosniff")),
                ("referrer-policy", Some("no-referrer")),
                ("x-frame-options", Some("DENY")),
                ("strict-transport-security", hsts),
            ] {
                assert_eq!(header(&response, name), value, "{method} {path}");
            }
            let policy = header(&response, "content-security-policy").unwrap();
            assert!(
                policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
                "{path} {policy}"
            );
        }
    }
    serving.abort();
    server.stop().await;
}

async fn request_with_two_hosts_is_refused(server: Server) {
    for (path, code) in [("/oauth2/jwks", "invalid_request"), ("/healthz", "malformed"), ("/unknown", "malformed")] {
        for (hosts, is_refused) in
            [("host: x\r\n", false), ("host: x\r\nhost: y\r\n", true), ("host: x\r\nHOST: x\r\n", true)]
        {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\n{hosts}connection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer.starts_with("HTTP/1.1 400 "), is_refused, "{path} {hosts:?} {answer}");
            assert!(!is_refused || (answer.contains(code) && answer.contains("`host`")), "{answer}");
        }
    }
    server.stop().await;
}

async fn public_documents_are_readable_from_any_origin(server: Server) {
    let origin = "https://app.example.com";
    let send = |method: Method, path: &str| server.request(method, path).header("origin", origin);
    for (path, status) in [
        ("/.well-known/oauth-authorization-server", 200),
        ("/oauth2/jwks", 200),
        ("/status-lists", 200),
        ("/status-lists/nothing", 404),
        ("/openapi.json", 200),
    ] {
        let preflight = send(Method::OPTIONS, path).header("access-control-request-method", "GET");
        let preflight = preflight.header("access-control-request-headers", "mcp-protocol-version");
        let preflight = preflight.send().await.unwrap();
        assert_eq!(preflight.status().as_u16(), 204, "{path}");
        assert_eq!(header(&preflight, "access-control-allow-headers"), Some("*"), "{path}");
        assert_eq!(header(&preflight, "access-control-allow-methods"), Some("GET, HEAD"), "{path}");
        let response = send(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{path}");
        for response in [&preflight, &response] {
            assert_eq!(header(response, "access-control-allow-origin"), Some("*"), "{path}");
            assert_eq!(header(response, "access-control-allow-credentials"), None, "{path}");
        }
    }
    for (method, path) in [
        (Method::POST, "/oauth2/token"),
        (Method::POST, "/oauth2/introspect"),
        (Method::GET, "/v1/tasks"),
        (Method::GET, "/v1/admin/agents"),
        (Method::GET, "/revocations"),
        (Method::GET, "/metrics"),
        (Method::GET, "/unknown"),
    ] {
        let preflight = send(Method::OPTIONS, path).header("access-control-request-method", method.as_str());
        let preflight = preflight.send().await.unwrap();
        assert!(preflight.status().is_client_error(), "{path}");
        let response = send(method, path).send().await.unwrap();
        for response in [preflight, response] {
            assert_eq!(header(&response, "access-control-allow-origin"), None, "{path}");
        }
    }
    server.stop().await;
}

/// Returns the sources in the audit records of a request.
async fn recorded_sources(server: &Server, request_id: &str) -> Vec<Value> {
    let (status, page) = server.admin(Method::GET, &format!("/audit?request_id={request_id}"), None).await;
    assert_eq!(status, 200, "{page}");
    let records = page["items"].as_array().unwrap();
    // The address is personal data: the hashed record has its digest, and the value beside it.
    assert!(
        records.iter().all(|record| record["chained"]["record"]["source"].as_str().unwrap().starts_with("sha-256:"))
    );
    records.iter().map(|record| record["personal"]["source"][1].clone()).collect()
}

async fn audit_records_name_the_source_address(server: Server) {
    let proxies =
        |header| TrustedProxies { networks: [([127, 0, 0, 1], 32)].map(|(ip, bits)| network(ip, bits)).into(), header };
    let (behind_proxy, serving) =
        start_listener(&server, HttpSettings::default(), proxies(ForwardedHeader::XForwardedFor)).await;
    let (forwarded, also_serving) =
        start_listener(&server, HttpSettings::default(), proxies(ForwardedHeader::Forwarded)).await;
    let admin = server.api_token("ops", "errand:admin errand:audit").await;
    let cases = [
        (server.url.clone(), "127.0.0.1"),
        (format!("http://{behind_proxy}"), "198.51.100.7"),
        (format!("http://{forwarded}"), "2001:db8::7"),
    ];
    let mut n = 0;
    for (url, expected) in cases {
        let mut id = || {
            n += 1;
            format!("source-{n}")
        };
        let send = |request: reqwest::RequestBuilder, id: &str| {
            let request = request.header("x-request-id", id).header("x-forwarded-for", "203.0.113.1, 198.51.100.7");
            request.header("forwarded", "for=203.0.113.1, for=\"[2001:db8::7]:443\"").send()
        };
        let exchange = server.exchange_form(&server.user_token(json!({"client_id": "reader-client"})));
        let credentials = |request: reqwest::RequestBuilder| request.basic_auth("reader", Some(secret("reader")));
        let mut requests = vec![
            (credentials(server.http.post(format!("{url}/oauth2/token"))).form(&exchange), 200),
            (
                credentials(server.http.post(format!("{url}/oauth2/token")))
                    .form(&form(&[("grant_type", "client_credentials")])),
                200,
            ),
            (credentials(server.http.post(format!("{url}/oauth2/token"))).form(&form(&[("grant_type", "other")])), 400),
            (server.http.post(format!("{url}/oauth2/token")).basic_auth("reader", Some("wrong")).form(&exchange), 401),
            (
                server.http.post(format!("{url}/v1/admin/revocations")).bearer_auth(&admin).json(&json!({
                    "kind": "agent", "id": "writer", "verb": "revoke", "reason": "test",
                })),
                200,
            ),
        ];
        // A second rotation changes nothing while a key is pending, and is not recorded.
        if url == server.url {
            let rotation = server.http.post(format!("{url}/v1/admin/keys/rotate"));
            requests.push((rotation.bearer_auth(&admin).json(&json!({})), 200));
        }
        for (request, status) in requests {
            let id = id();
            let (answered, body) = read_response(send(request, &id).await.unwrap()).await;
            assert_eq!(answered.as_u16(), status, "{id} {body}");
            // Records of refusals are written in the background.
            wait_until(&id, || async { !recorded_sources(&server, &id).await.is_empty() }).await;
            let sources = recorded_sources(&server, &id).await;
            assert!(!sources.is_empty() && sources.iter().all(|source| source == expected), "{id} {sources:?}");
        }
    }
    serving.abort();
    also_serving.abort();
    server.stop().await;
}

fn network(ip: [u8; 4], bits: u8) -> ipnet::IpNet {
    ipnet::IpNet::new(ip.into(), bits).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn issuer_with_a_path_serves_its_endpoints() {
    let below = |text: String| text.replace("http://ADDRESS\"", "http://ADDRESS/sts\"");
    let server = Server::start_edited(TestStore::sqlite().await, below).await;
    assert!(server.issuer.ends_with("/sts"), "{}", server.issuer);
    for path in [
        "/.well-known/oauth-authorization-server/sts",
        "/sts/.well-known/oauth-authorization-server",
        "/.well-known/oauth-authorization-server",
    ] {
        let metadata = server.request(Method::GET, path).send().await.unwrap().json::<Value>().await.unwrap();
        assert_eq!(metadata["issuer"], server.issuer, "{path}");
        let form = server.exchange_form(&server.user_token(json!({"client_id": "reader-client"})));
        for endpoint in [metadata["token_endpoint"].as_str().unwrap(), &format!("{}/oauth2/token", server.url)] {
            let request = server.http.post(endpoint).basic_auth("reader", Some(secret("reader"))).form(&form);
            let (status, body) = read_response(request.send().await.unwrap()).await;
            assert_eq!(status, 200, "{endpoint} {body}");
        }
        for member in ["jwks_uri", "status_list_aggregation_endpoint", "service_documentation"] {
            let url = metadata[member].as_str().unwrap();
            assert!(url.starts_with(&server.issuer), "{url}");
            assert_eq!(server.http.get(url).send().await.unwrap().status(), 200, "{url}");
        }
    }
    let other = server.request(Method::GET, "/other/oauth2/jwks").send().await.unwrap();
    assert_eq!(other.status(), 404);
    server.stop().await;
}
