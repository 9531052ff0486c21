//! Concurrency limits by family of endpoints.

use std::net::SocketAddr;

use errand::http::{AppState, HttpSettings, Listener, RequestLimits, router, serve};
use reqwest::{Method, RequestBuilder};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinHandle};

use crate::server::{Server, form, read_response, secret};

on_both_stores!(full_family_is_shed_and_others_are_served, slow_bodies_take_no_share);

/// Starts another listener for the same service, with these limits.
async fn start_limited(server: &Server, limits: RequestLimits) -> (SocketAddr, JoinHandle<()>) {
    let app = AppState::new(server.application.service.clone());
    let settings = HttpSettings { limits, ..HttpSettings::default() };
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), None).await.unwrap();
    let address = listener.local_addr().unwrap();
    (address, tokio::spawn(serve(listener, router(app, settings), std::future::pending())))
}

async fn full_family_is_shed_and_others_are_served(server: Server) {
    let token = server.task_token().await;
    let admin = server.api_token("ops", "errand:admin errand:audit").await;
    let tasks = server.api_token("reader", "errand:tasks").await;
    let all = RequestLimits::default();
    let families = [
        ("token", RequestLimits { token: 0, ..all }),
        ("introspection", RequestLimits { introspection: 0, ..all }),
        ("evaluation", RequestLimits { evaluation: 0, ..all }),
        ("revocation", RequestLimits { revocation: 0, ..all }),
        ("self_service", RequestLimits { self_service: 0, ..all }),
        ("admin_revocation", RequestLimits { admin_revocation: 0, ..all }),
        ("administration", RequestLimits { administration: 0, ..all }),
        ("documents", RequestLimits { documents: 0, ..all }),
    ];
    for (full, limits) in families {
        let (address, serving) = start_limited(&server, limits).await;
        let request = |method: Method, path: &str| server.http.request(method, format!("http://{address}{path}"));
        let credentials = |client: &str, request: RequestBuilder| request.basic_auth(client, Some(secret(client)));
        let api_token = form(&[("grant_type", "client_credentials"), ("scope", "errand:tasks")]);
        let requests = [
            ("token", credentials("reader", request(Method::POST, "/oauth2/token")).form(&api_token), 200),
            (
                "introspection",
                credentials("files", request(Method::POST, "/oauth2/introspect")).form(&form(&[("token", &token)])),
                200,
            ),
            (
                "evaluation",
                credentials("files", request(Method::POST, "/access/v1/evaluation")).json(&serde_json::json!({})),
                400,
            ),
            (
                "revocation",
                credentials("reader", request(Method::POST, "/oauth2/revoke")).form(&form(&[("token", "x")])),
                200,
            ),
            ("self_service", request(Method::GET, "/v1/tasks").bearer_auth(&tasks), 200),
            (
                "admin_revocation",
                request(Method::POST, "/v1/admin/revocations").bearer_auth(&admin).json(&serde_json::json!({})),
                400,
            ),
            ("administration", request(Method::GET, "/v1/admin/agents").bearer_auth(&admin), 200),
            ("documents", request(Method::GET, "/oauth2/jwks"), 200),
            ("none", request(Method::GET, "/healthz"), 200),
            ("none", request(Method::GET, "/readyz"), 200),
            ("none", request(Method::GET, "/metrics"), 200),
            ("none", request(Method::GET, "/unknown"), 404),
        ];
        for (family, request, status) in requests {
            let response = request.send().await.unwrap();
            if family != full {
                assert_eq!(response.status().as_u16(), status, "{family} while {full} is full");
                continue;
            }
            assert_eq!(response.headers()["retry-after"], "1", "{family}");
            let (status, body) = read_response(response).await;
            assert_eq!(status, 503, "{family}");
            let text = body.get("error_description").or(body.get("detail")).unwrap();
            assert_eq!(text, "too many requests of this kind are in progress; retry later", "{family}");
        }
        let metrics = request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
        let shed = metrics.lines().filter(|line| line.starts_with("errand_requests_shed_total{"));
        let expected = format!("errand_requests_shed_total{{family=\"{full}\"}} 1");
        assert_eq!(shed.collect::<Vec<_>>(), [expected]);
        serving.abort();
    }
    server.stop().await;
}

async fn slow_bodies_take_no_share(server: Server) {
    let (address, serving) =
        start_limited(&server, RequestLimits { introspection: 1, ..RequestLimits::default() }).await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = "POST /oauth2/introspect HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\n\
                    content-length: 1000\r\n\r\ntoken=";
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let token = server.task_token().await;
    for _ in 0..10 {
        let request = server.http.post(format!("http://{address}/oauth2/introspect"));
        let request = request.basic_auth("files", Some(secret("files"))).form(&form(&[("token", &token)]));
        let (status, body) = read_response(request.send().await.unwrap()).await;
        assert_eq!((status.as_u16(), &body["active"]), (200, &true.into()), "{body}");
    }
    serving.abort();
    server.stop().await;
}
