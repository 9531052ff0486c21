//! `[tracing]`: export of traces to an OpenTelemetry collector.

use url::Url;

use crate::config::node::Section;

/// `[tracing]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// URL of the collector's trace endpoint (OTLP over HTTP).
    pub endpoint: Url,
    /// `service.name` of the traces.
    pub service_name: String,
    /// The share of traces that are exported.
    pub sample_percent: u32,
    /// Whether the caller's decision in `traceparent` has priority over the share.
    pub follow_caller: bool,
}

/// Reads the section. Without it, no traces are exported.
pub(in crate::config) fn read_tracing(root: &mut Section<'_>) -> Option<Tracing> {
    let mut section = root.section("tracing");
    if !section.is_present() {
        return None;
    }
    let example = "\"http://127.0.0.1:4318/v1/traces\"";
    let endpoint = section.required("endpoint", example, |node| {
        let remedy = "write the URL of the collector, with its path, such as `http://127.0.0.1:4318/v1/traces`";
        // The text is not shown: it may contain a password.
        let url = Url::parse(node.string()?).map_err(|error| node.error(error, remedy)).ok()?;
        if !url.username().is_empty() || url.password().is_some() {
            node.error("secrets must not be in this file", "remove the user information from the URL");
            return None;
        }
        if matches!(url.scheme(), "http" | "https") {
            return Some(url);
        }
        node.error("is not an http or https URL", remedy);
        None
    });
    let service_name = section.optional("service_name", |node| node.non_empty_string());
    let sample_percent = section.number("sample_percent", 100, 0..=100, "per cent of the traces");
    let follow_caller = section.optional("follow_caller", |node| node.boolean()).unwrap_or(true);
    let service_name = service_name.unwrap_or_else(|| "errand".to_owned());
    Some(Tracing { endpoint: endpoint?, service_name, sample_percent, follow_caller })
}
