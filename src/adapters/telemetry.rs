//! Export of traces to an OpenTelemetry collector (OTLP over HTTP), and W3C trace context
//! (`traceparent`). Without the feature `otlp`, trace context is ignored.

use reqwest::header::HeaderMap;
use tracing::Span;

/// Makes the caller's span the parent of a span, if the headers name one.
#[cfg(feature = "otlp")]
pub fn adopt_remote_parent(span: &Span, headers: &HeaderMap) {
    use opentelemetry::{propagation::TextMapPropagator, trace::TraceContextExt};
    use opentelemetry_http::HeaderExtractor;
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    if span.is_disabled() || !headers.contains_key("traceparent") {
        return;
    }
    let parent = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
    // A header that is not valid yields no context; the span then begins a trace of its own.
    if parent.span().span_context().is_valid()
        && let Err(error) = span.set_parent(parent)
    {
        tracing::debug!(%error, "the trace context of the caller is not used");
    }
}

/// Does nothing: the feature `otlp` is off.
#[cfg(not(feature = "otlp"))]
pub fn adopt_remote_parent(_: &Span, _: &HeaderMap) {}

/// Adds the trace context of the current span to the headers of an outgoing request.
#[cfg(feature = "otlp")]
pub(in crate::adapters) fn inject_trace_context(headers: &mut HeaderMap) {
    use opentelemetry::{propagation::TextMapPropagator, trace::TraceContextExt};
    use opentelemetry_http::HeaderInjector;
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    let context = Span::current().context();
    if context.span().span_context().is_valid() {
        TraceContextPropagator::new().inject_context(&context, &mut HeaderInjector(headers));
    }
}

/// Does nothing: the feature `otlp` is off.
#[cfg(not(feature = "otlp"))]
pub(in crate::adapters) fn inject_trace_context(_: &mut HeaderMap) {}

#[cfg(feature = "otlp")]
pub use export::{ExportSettings, TelemetryError, TraceExport};

#[cfg(feature = "otlp")]
mod export {
    use std::time::Duration;

    use async_trait::async_trait;
    use opentelemetry::{KeyValue, trace::TracerProvider};
    use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
    use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithHttpConfig};
    use opentelemetry_sdk::{
        Resource,
        trace::{Sampler, SdkTracer, SdkTracerProvider},
    };
    use thiserror::Error;
    use tokio::runtime::Handle;

    /// Time limit of one export.
    const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
    /// Maximum bytes of a collector's answer.
    const MAX_ANSWER_BYTES: usize = 1 << 20;

    /// Where traces go, and which.
    #[derive(Clone, Debug)]
    pub struct ExportSettings {
        /// URL of the collector's trace endpoint, such as `http://127.0.0.1:4318/v1/traces`.
        pub endpoint: String,
        /// `service.name`
        pub service_name: String,
        /// `service.instance.id`
        pub instance: String,
        /// The share of traces to export, from 0 to 1.
        pub sample_ratio: f64,
        /// Whether the caller's decision in `traceparent` has priority over the share.
        pub follows_caller: bool,
    }

    /// The exporter can't be built.
    #[derive(Debug, Error)]
    pub enum TelemetryError {
        /// The HTTP client.
        #[error("the HTTP client can't be built")]
        Client(#[source] reqwest::Error),
        /// The exporter.
        #[error("the exporter can't be built")]
        Exporter(#[source] ExporterBuildError),
    }

    /// An exporter of traces. Spans wait in a bounded queue; if the collector is away, they are
    /// dropped.
    #[derive(Debug)]
    pub struct TraceExport {
        provider: SdkTracerProvider,
    }

    impl TraceExport {
        /// Starts the exporter. Must be called inside a tokio runtime, which sends the requests.
        pub fn start(settings: &ExportSettings) -> Result<Self, TelemetryError> {
            // An error means that a provider is installed already, which is ring as well.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let builder = reqwest::Client::builder()
                .timeout(EXPORT_TIMEOUT)
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy();
            let builder = if settings.endpoint.starts_with("https:") {
                builder
            } else {
                // Plain HTTP works on a machine without root certificates too.
                builder.tls_certs_only([])
            };
            let client = builder.build().map_err(TelemetryError::Client)?;
            let exporter = SpanExporter::builder()
                .with_http()
                .with_http_client(CollectorClient { client, runtime: Handle::current() })
                .with_endpoint(&settings.endpoint)
                .with_timeout(EXPORT_TIMEOUT)
                .build()
                .map_err(TelemetryError::Exporter)?;
            let ratio = Sampler::TraceIdRatioBased(settings.sample_ratio);
            let sampler = if settings.follows_caller { Sampler::ParentBased(Box::new(ratio)) } else { ratio };
            let attributes = [
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", settings.instance.clone()),
            ];
            let resource =
                Resource::builder().with_service_name(settings.service_name.clone()).with_attributes(attributes);
            let provider = SdkTracerProvider::builder()
                .with_batch_exporter(exporter)
                .with_sampler(sampler)
                .with_resource(resource.build())
                .build();
            Ok(Self { provider })
        }

        /// Returns the tracer, for a layer of the subscriber.
        #[must_use]
        pub fn tracer(&self) -> SdkTracer {
            self.provider.tracer("errand")
        }

        /// Exports the spans that wait, and ends.
        pub async fn shutdown(self) {
            let provider = self.provider;
            // It blocks, and the exporter needs the runtime meanwhile.
            match tokio::task::spawn_blocking(move || provider.shutdown()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the last traces are not exported"),
                Err(error) => tracing::warn!(%error, "the last traces are not exported"),
            }
        }
    }

    /// Sends to the collector on the runtime of the server. The exporter has a thread without one.
    #[derive(Clone, Debug)]
    struct CollectorClient {
        client: reqwest::Client,
        runtime: Handle,
    }

    #[async_trait]
    impl HttpClient for CollectorClient {
        async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
            let client = self.client.clone();
            self.runtime.spawn(async move { send(&client, request).await }).await?
        }
    }

    async fn send(client: &reqwest::Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let request = client.request(parts.method, parts.uri.to_string()).headers(parts.headers).body(body);
        let mut answer = request.send().await?;
        let mut response = Response::builder().status(answer.status());
        for (name, value) in answer.headers() {
            response = response.header(name, value);
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err("the answer of the collector is too large".into());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(response.body(bytes.into())?)
    }
}

#[cfg(test)]
#[cfg(feature = "otlp")]
mod tests {
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::{Registry, layer::SubscriberExt};

    use super::*;

    #[test]
    fn outgoing_request_continues_the_trace_of_the_incoming_one() {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let _subscriber = tracing::subscriber::set_default(Registry::default().with(layer));
        let sent = |traceparent: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(traceparent) = traceparent {
                headers.insert("traceparent", traceparent.parse().unwrap());
            }
            let span = tracing::info_span!("request");
            adopt_remote_parent(&span, &headers);
            let mut outgoing = HeaderMap::new();
            span.in_scope(|| inject_trace_context(&mut outgoing));
            outgoing.get("traceparent").map(|value| value.to_str().unwrap().to_owned()).unwrap()
        };
        let (id, other) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000000");
        let continued = sent(Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        assert!(continued.starts_with(&format!("00-{id}-")) && continued.ends_with("-01"), "{continued}");
        assert!(!continued.contains("00f067aa0ba902b7"), "the span is a new one");
        // Without a valid context, the request begins a trace.
        for invalid in [
            None,
            Some("00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
            Some("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"),
            Some("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            Some("nonsense"),
        ] {
            let begun = sent(invalid);
            assert!(!begun.contains(id) && !begun.contains(other), "{invalid:?} {begun}");
        }
        let mut none = HeaderMap::new();
        inject_trace_context(&mut none);
        assert!(none.is_empty(), "no span, no header");
    }
}
