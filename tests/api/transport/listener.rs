//! Connections: graceful shutdown, slow clients, TLS, the operations listener.

use std::{net::SocketAddr, path::PathBuf};

use errand::http::{AppState, HttpSettings, Listener, Tls, operations_router, router, serve};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::{Duration, timeout},
};

use crate::server::{Server, form, secret, wait_until};

on_both_stores!(
    in_flight_requests_finish_on_shutdown,
    slow_client_is_disconnected,
    tls_serves_http1_and_http2,
    changed_certificate_is_picked_up,
    operations_listener_serves_only_operations
);

/// Reads until the server closes the connection, with a time limit.
async fn read_rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    // A reset closes the connection as well.
    let _ = timeout(Duration::from_mins(1), stream.read_to_end(&mut text)).await.expect("the connection ends");
    String::from_utf8_lossy(&text).into_owned()
}

async fn read_until(stream: &mut TcpStream, end: &str) {
    let mut text = String::new();
    while !text.contains(end) {
        let mut bytes = [0; 256];
        let n = timeout(Duration::from_mins(1), stream.read(&mut bytes)).await.unwrap().unwrap();
        assert!(n > 0, "the connection ended: {text}");
        text += &String::from_utf8_lossy(&bytes[..n]);
    }
}

async fn in_flight_requests_finish_on_shutdown(mut server: Server) {
    let token = server.task_token().await;
    let user = server.user_token(json!({"client_id": "reader-client"}));
    let body = server.exchange_form(&user);
    let body = server.http.post("http://x").form(&body).build().unwrap();
    let body = body.body().unwrap().as_bytes().unwrap().to_vec();
    let head = |path: &str, length: usize| {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let credentials = STANDARD.encode(format!("reader:{}", secret("reader")));
        format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Basic {credentials}\r\nexpect: 100-continue\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    // The server requests each body, so each request is in progress when the server stops.
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(head("/oauth2/token", body.len()).as_bytes()).await.unwrap();
        read_until(&mut stream, "100 Continue").await;
        streams.push(stream);
    }
    server.signal_stop();
    wait_until("refused connections", || async { TcpStream::connect(server.address).await.is_err() }).await;
    let mut issued = Vec::new();
    for mut stream in streams {
        stream.write_all(&body).await.unwrap();
        let answer = read_rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let json = answer.split("\r\n\r\n").nth(1).unwrap();
        issued.push(
            serde_json::from_str::<serde_json::Value>(json).unwrap()["access_token"].as_str().unwrap().to_owned(),
        );
    }
    let restarted = server.replica().await;
    server.stop().await;
    for token in issued.iter().chain([&token]) {
        assert!(restarted.is_active(token).await, "the tokens issued during shutdown are recorded");
    }
    restarted.stop().await;
}

async fn slow_client_is_disconnected(server: Server) {
    let beginnings: [&[u8]; 7] = [
        b"",
        b"P",
        b"POST",
        b"PRI * HTTP/2.0\r\n",
        b"POST /oauth2/token HTTP/1.1\r\nhost: x\r\n",
        b"GET /healthz HTTP/1.1\r\nx-slow: aaaaaaaa",
        b"\x16\x03\x01",
    ];
    let mut waiting = Vec::new();
    for beginning in beginnings {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(beginning).await.unwrap();
        waiting.push((
            String::from_utf8_lossy(beginning).into_owned(),
            tokio::spawn(async move { read_rest(&mut stream).await }),
        ));
    }
    // Sending one header at a time does not extend the limit.
    let address = server.address;
    let trickling = tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
        for n in 0..1000 {
            if stream.write_all(format!("x-{n}: more\r\n").as_bytes()).await.is_err() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    });
    assert_eq!(server.request(Method::GET, "/healthz").send().await.unwrap().status(), 200, "other clients are served");
    let mut open = Vec::new();
    for (beginning, ended) in waiting {
        match ended.await {
            Ok(answer) => assert!(!answer.contains("200 OK"), "{beginning:?} {answer}"),
            Err(_) => open.push(beginning),
        }
    }
    assert!(open.is_empty(), "still open: {open:?}");
    assert!(trickling.await.unwrap());
    server.stop().await;
}

/// Starts another listener for the same service.
async fn start_listener(server: &Server, tls: Option<Tls>, operations: bool) -> (SocketAddr, JoinHandle<()>) {
    let app = AppState::new(server.application.service.clone());
    let settings = HttpSettings { serves_operations: operations, ..HttpSettings::default() };
    let routes = if operations { operations_router(app, settings) } else { router(app, settings) };
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), tls).await.unwrap();
    let address = listener.local_addr().unwrap();
    (address, tokio::spawn(serve(listener, routes, std::future::pending())))
}

async fn tls_serves_http1_and_http2(server: Server) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let write = |name: &str, text: String| {
        let path: PathBuf = server.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (chain, key) = (write("chain.pem", cert.pem()), write("key.pem", signing_key.serialize_pem()));
    let (address, serving) = start_listener(&server, Some(Tls::load(&chain, &key).unwrap()), false).await;

    let trusting = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(cert.pem().as_bytes()).unwrap()])
        .no_proxy()
        .build()
        .unwrap();
    let url = format!("https://localhost:{}", address.port());
    let token = server.task_token().await;
    let ask = || {
        let request = trusting.post(format!("{url}/oauth2/introspect")).basic_auth("files", Some(secret("files")));
        request.form(&form(&[("token", &token)])).send()
    };
    let answer = ask().await.unwrap().json::<serde_json::Value>().await.unwrap();
    assert_eq!(answer["active"], true, "{answer}");

    // Plain HTTP, random bytes, an aborted handshake: each connection closes without a response,
    // and others are unaffected.
    let plain = server.http.get(format!("http://localhost:{}/healthz", address.port())).send().await;
    assert!(plain.is_err(), "{plain:?}");
    for beginning in [&b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"[..], &[0; 64], b"\x16\x03\x01\x02\x00", b""] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(beginning).await.unwrap();
        assert!(!read_rest(&mut stream).await.contains("HTTP/1.1"), "{beginning:?}");
    }
    assert!(
        trusting.get(format!("https://127.0.0.1:{}", address.port())).send().await.is_err(),
        "the certificate has another name"
    );
    assert_eq!(ask().await.unwrap().status(), 200);

    // An error names the file that does not match.
    let other = generate_simple_self_signed(["localhost".to_owned()]).unwrap().signing_key.serialize_pem();
    let (other, nothing) = (write("other.pem", other), write("nothing.pem", "nothing".to_owned()));
    for (chain, key, names) in [(&chain, &other, &other), (&nothing, &key, &nothing), (&chain, &nothing, &nothing)] {
        let error = Tls::load(chain, key).unwrap_err().to_string();
        assert!(error.contains(&names.display().to_string()), "{error}");
    }
    serving.abort();
    server.stop().await;
}

async fn changed_certificate_is_picked_up(server: Server) {
    let write = |name: &str, text: String| {
        let path: PathBuf = server.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let [first, second] = [0, 1].map(|_| generate_simple_self_signed(["localhost".to_owned()]).unwrap());
    let (chain, key) = (write("chain.pem", first.cert.pem()), write("key.pem", first.signing_key.serialize_pem()));
    let tls = Tls::load(&chain, &key).unwrap();
    let (address, serving) = start_listener(&server, Some(tls.clone()), false).await;
    let connects = async |cert: &CertifiedKey<rcgen::KeyPair>| {
        let trusting = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(cert.cert.pem().as_bytes()).unwrap()])
            .no_proxy()
            .build()
            .unwrap();
        trusting.get(format!("https://localhost:{}/healthz", address.port())).send().await.is_ok()
    };
    assert!(!tls.reload().unwrap(), "nothing has changed");
    assert!(connects(&first).await && !connects(&second).await);
    // One file is replaced before the other: the previous pair stays in use.
    write("chain.pem", second.cert.pem());
    tls.reload().unwrap_err();
    assert!(connects(&first).await);
    let watching = tokio::spawn(tls.clone().watch());
    write("key.pem", second.signing_key.serialize_pem());
    crate::server::wait_until("the new certificate is in use", || connects(&second)).await;
    assert!(!connects(&first).await);
    // Broken and missing files leave the certificate in use.
    write("key.pem", "nothing".into());
    tls.reload().unwrap_err();
    std::fs::remove_file(&chain).unwrap();
    tls.reload().unwrap_err();
    assert!(connects(&second).await);
    watching.abort();
    serving.abort();
    server.stop().await;
}

async fn operations_listener_serves_only_operations(server: Server) {
    let (public, serving) = start_listener(&server, None, false).await;
    let (operations, other) = start_listener(&server, None, true).await;
    let status = async |at: SocketAddr, path: &str| {
        server.http.get(format!("http://{at}{path}")).send().await.unwrap().status().as_u16()
    };
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!((status(public, path).await, status(operations, path).await), (404, 200), "{path}");
    }
    for path in ["/oauth2/jwks", "/.well-known/oauth-authorization-server"] {
        assert_eq!((status(public, path).await, status(operations, path).await), (200, 404), "{path}");
    }
    assert_eq!((status(public, "/v1/admin/agents").await, status(operations, "/v1/admin/agents").await), (401, 404));
    serving.abort();
    other.abort();
    server.stop().await;
}
