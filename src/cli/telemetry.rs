//! The export of traces.

use errand::config::Config;
use tracing_subscriber::{Layer, Registry};

use super::CliError;

/// The export of traces while the server runs.
#[derive(Default)]
pub(super) struct Traces {
    #[cfg(feature = "otlp")]
    export: Option<errand::adapters::telemetry::TraceExport>,
}

impl Traces {
    /// Exports the traces that wait, and ends.
    pub(super) async fn shutdown(self) {
        #[cfg(feature = "otlp")]
        if let Some(export) = self.export {
            export.shutdown().await;
        }
    }
}

/// A layer of the subscriber.
pub(super) type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Starts the export of traces, if it is configured.
#[cfg(feature = "otlp")]
pub(super) fn start_traces(config: &Config) -> Result<(Traces, Option<BoxedLayer>), CliError> {
    use errand::adapters::{
        system::host_name,
        telemetry::{ExportSettings, TraceExport},
    };
    use tracing_subscriber::filter::{LevelFilter, Targets};

    let Some(tracing) = &config.tracing else { return Ok((Traces::default(), None)) };
    let settings = ExportSettings {
        endpoint: tracing.endpoint.to_string(),
        service_name: tracing.service_name.clone(),
        instance: config.replicas.name.clone().unwrap_or_else(host_name),
        sample_ratio: f64::from(tracing.sample_percent) / 100.0,
        follows_caller: tracing.follow_caller,
    };
    let export = TraceExport::start(&settings).map_err(CliError::with_context("[tracing]"))?;
    // The spans for traces have a target of their own. Log lines stay in the log.
    let spans = Targets::new().with_target("errand::trace", LevelFilter::TRACE);
    let layer = tracing_opentelemetry::layer().with_tracer(export.tracer()).with_location(false).with_threads(false);
    Ok((Traces { export: Some(export) }, Some(layer.with_filter(spans).boxed())))
}

/// Refuses the section: the feature `otlp` is off.
#[cfg(not(feature = "otlp"))]
pub(super) fn start_traces(config: &Config) -> Result<(Traces, Option<BoxedLayer>), CliError> {
    if config.tracing.is_some() {
        let text = "[tracing]: this build can't export traces; use one with the feature `otlp`, or remove the section";
        return Err(CliError::new(text));
    }
    Ok((Traces::default(), None))
}
