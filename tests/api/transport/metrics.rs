//! Metrics: their formats, and that the documentation, the alerts and the dashboard name the
//! metrics that there are.

use std::{collections::BTreeSet, net::SocketAddr, path::Path};

use errand::{
    adapters::system::read_process_usage,
    http::{AppState, HttpSettings, Listener, RequestLimits, router, serve},
};
use reqwest::Method;

use crate::server::{Server, form, secret};

on_both_stores!(accept_decides_the_format, rejections_are_counted_by_client, every_metric_is_documented);

async fn accept_decides_the_format(server: Server) {
    for (accept, media_type, has_end_mark) in [
        (None, "text/plain; version=0.0.4; charset=utf-8", false),
        (Some("text/plain"), "text/plain; version=0.0.4; charset=utf-8", false),
        (
            Some("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"),
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            true,
        ),
    ] {
        let request = server.request(Method::GET, "/metrics");
        let request = accept.into_iter().fold(request, |request, accept| request.header("accept", accept));
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-type"], media_type, "{accept:?}");
        let text = response.text().await.unwrap();
        assert_eq!(text.ends_with("# EOF\n"), has_end_mark, "{accept:?}");
        assert!(text.contains("\nerrand_build_info{version=\""), "{text}");
    }
    server.stop().await;
}

async fn rejections_are_counted_by_client(server: Server) {
    let wrong = form(&[("grant_type", "other")]);
    for _ in 0..3 {
        assert_eq!(server.post_as("reader", "/oauth2/token", &wrong).await.0, 400);
    }
    let anonymous = server.post("/oauth2/token").basic_auth("reader", Some("wrong")).form(&wrong);
    assert_eq!(anonymous.send().await.unwrap().status(), 401);
    let tasks = server.api_token("writer", "errand:tasks").await;
    let unknown = format!("/v1/tasks/{}", uuid::Uuid::nil());
    assert_eq!(server.request(Method::GET, &unknown).bearer_auth(tasks).send().await.unwrap().status(), 404);
    let metrics = server.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    for line in [
        "errand_client_rejections_total{client=\"reader\",code=\"unsupported_grant_type\"} 3",
        "errand_client_rejections_total{client=\"none\",code=\"invalid_client\"} 1",
        "errand_client_rejections_total{client=\"writer\",code=\"not_found\"} 1",
    ] {
        assert!(metrics.lines().any(|other| other == line), "{line}\n{metrics}");
    }
    server.stop().await;
}

/// Returns the names of metrics in a text: of this server, and of its process.
fn metric_names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| {
        let rest = word.strip_prefix("errand_").or(word.strip_prefix("process_"));
        rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    });
    let base = |name: &str| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        base.unwrap_or(name).to_owned()
    };
    names.map(base).collect()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

async fn every_metric_is_documented(server: Server) {
    // A metric with labels has no line before its first sample.
    let limits = RequestLimits { documents: 0, ..RequestLimits::default() };
    let app = AppState::new(server.application.service.clone()).with_process_usage(read_process_usage);
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), None).await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = router(app, HttpSettings { limits, ..HttpSettings::default() });
    let serving = tokio::spawn(serve(listener, routes, std::future::pending()));
    let get =
        |path: &str| server.http.get(format!("http://{address}{path}")).basic_auth("files", Some(secret("files")));
    assert_eq!(get("/oauth2/jwks").send().await.unwrap().status(), 503);
    server.application.service.collect_garbage(&server.cx()).await.unwrap();
    let metrics = get("/metrics").send().await.unwrap().text().await.unwrap();
    let kinds = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let served = kinds.map(|kind| kind.replace(' ', "` | ")).collect::<BTreeSet<_>>();

    let page = read("docs/reference/metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `errand_") || line.starts_with("| `process_"));
    let rows =
        rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect::<Vec<_>>()).collect::<Vec<_>>();
    let documented = rows.iter().map(|row| format!("{} | {}", row[0].trim_start_matches('`'), row[1]));
    assert_eq!(documented.collect::<BTreeSet<_>>(), served, "docs/reference/metrics.md differs from the metrics");

    let names = served.iter().map(|kind| kind.split('`').next().unwrap().to_owned()).collect::<BTreeSet<_>>();
    let (rules, dashboard) = (read("deploy/prometheus/errand.rules.yml"), read("deploy/grafana/errand.json"));
    for (file, text) in [("the rules", &rules), ("the dashboard", &dashboard)] {
        let unknown = metric_names(text).difference(&names).cloned().collect::<Vec<_>>();
        assert!(unknown.is_empty(), "{file} name metrics that do not exist: {unknown:?}");
    }
    serde_json::from_str::<serde_json::Value>(&dashboard).unwrap();

    // Each alert exists, is explained, and uses the metric whose row names it.
    let alerts = rules.split("- alert: ").skip(1).map(|rule| rule.split_once('\n').unwrap()).collect::<Vec<_>>();
    let explained = page.split_once("## Alerts").unwrap().1;
    for (alert, _) in &alerts {
        assert!(explained.contains(&format!("`{alert}`")), "docs/reference/metrics.md does not explain {alert}");
    }
    for row in &rows {
        let (name, alert) = (row[0].trim_matches('`'), row.last().unwrap().trim_matches('`'));
        if alert == "–" {
            continue;
        }
        let rule = alerts.iter().find(|(other, _)| *other == alert);
        let (_, rule) = rule.unwrap_or_else(|| panic!("no rule {alert} in deploy/prometheus/errand.rules.yml"));
        assert!(metric_names(rule).contains(name), "{alert} does not use {name}");
    }
    serving.abort();
    server.stop().await;
}
