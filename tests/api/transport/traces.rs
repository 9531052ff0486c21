//! Export of traces: the spans of a request reach the collector, in the trace of the caller.

use std::sync::Arc;

use axum::{Router, body::Bytes, routing::post};
use errand::{
    adapters::telemetry::{ExportSettings, TraceExport, adopt_remote_parent},
    http::{AppState, HttpSettings, Listener, router, serve},
};
use parking_lot::Mutex;
use serde_json::json;
use tracing_subscriber::{
    Layer, Registry,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
};

use crate::{
    server::{Server, secret},
    support::TestStore,
};

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Returns whether the bytes contain a part.
fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

// One thread, so that the subscriber of this thread sees every span.
#[tokio::test]
async fn spans_of_a_request_are_exported_in_the_trace_of_the_caller() {
    let received = Arc::<Mutex<Vec<u8>>>::default();
    let collector = {
        let received = Arc::clone(&received);
        Router::new().route("/v1/traces", post(async move |body: Bytes| received.lock().extend_from_slice(&body)))
    };
    let any_port = || std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener::bind(any_port(), None).await.unwrap();
    let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let collecting = tokio::spawn(serve(listener, collector, std::future::pending()));
    let export = TraceExport::start(&ExportSettings {
        endpoint,
        service_name: "errand-test".into(),
        instance: "replica-1".into(),
        sample_ratio: 0.0,
        follows_caller: true,
    })
    .unwrap();
    let spans = Targets::new().with_target("errand::trace", LevelFilter::TRACE);
    let layer = tracing_opentelemetry::layer().with_tracer(export.tracer()).with_filter(spans);
    let subscriber = tracing::subscriber::set_default(Registry::default().with(layer));

    let server = Server::start(TestStore::sqlite().await).await;
    let app = AppState::new(server.application.service.clone()).with_trace_context(adopt_remote_parent);
    let listener = Listener::bind(any_port(), None).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(serve(listener, router(app, HttpSettings::default()), std::future::pending()));

    let form = server.exchange_form(&server.user_token(json!({"client_id": "reader-client"})));
    let exchange = server.http.post(format!("{url}/oauth2/token")).basic_auth("reader", Some(secret("reader")));
    let exchange = exchange.header("traceparent", format!("00-{TRACE_ID}-00f067aa0ba902b7-01"));
    assert_eq!(exchange.header("x-request-id", "traced-1").form(&form).send().await.unwrap().status(), 200);
    let admin = server.api_token("ops", "errand:admin").await;
    let revocation = server.http.post(format!("{url}/v1/admin/revocations")).bearer_auth(admin);
    let revocation = revocation.header("traceparent", format!("00-{TRACE_ID}-00f067aa0ba902b7-01"));
    let revocation = revocation.json(&json!({"kind": "agent", "id": "writer", "verb": "revoke", "reason": "test"}));
    assert_eq!(revocation.send().await.unwrap().status(), 200);
    // The caller's decision not to sample counts, and so does the share, which is zero.
    for traceparent in [format!("00-{TRACE_ID}-00f067aa0ba902b7-00"), "not valid".to_owned()] {
        let request = server.http.get(format!("{url}/oauth2/jwks")).header("traceparent", traceparent);
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    drop(subscriber);
    export.shutdown().await;

    let received = received.lock().clone();
    for name in [
        "errand-test",
        "replica-1",
        "POST /oauth2/token",
        "traced-1",
        "authenticate",
        "evidence",
        "decide",
        "sign",
        "commit",
        "POST /v1/admin/revocations",
        "propagate",
    ] {
        assert!(contains(&received, name.as_bytes()), "{name} is not exported");
    }
    let trace_id = u128::from_str_radix(TRACE_ID, 16).unwrap().to_be_bytes();
    assert!(contains(&received, &trace_id), "the trace of the caller goes on");
    assert!(!contains(&received, b"GET /oauth2/jwks"), "a trace that is not sampled");
    for private in ["alice", &secret("reader"), "127.0.0.1"] {
        assert!(!contains(&received, private.as_bytes()), "{private}");
    }
    serving.abort();
    collecting.abort();
    server.stop().await;
}
