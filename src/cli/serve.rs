//! The command `errand serve`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use errand::{
    adapters::system::OsEntropy,
    bootstrap::{Application, MigrationPolicy},
    config::{Config, DEV_LISTEN, warnings},
    http::{AppState, HttpSettings, Listener, Tls, operations_router, router, serve},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{CliError, check_config, dev, log, output::eprint_line, runtime::block_on};

/// Serves with a configuration file, or for development without one.
pub(super) fn run(file: Option<&Path>, listen: Option<SocketAddr>) -> Result<(), CliError> {
    let config = match file {
        Some(file) => check_config::load(file)?,
        None => Config::dev(Path::new("."), listen.unwrap_or(DEV_LISTEN), &OsEntropy::new()?).map_err(CliError::new)?,
    };
    log::init(&config)?;
    block_on(run_server(config, file.is_none()))
}

async fn run_server(config: Config, development: bool) -> Result<(), CliError> {
    if development {
        tracing::warn!(
            "FOR DEVELOPMENT ONLY: demo objects, keys and secrets in ./errand-dev; listening on loopback only"
        );
    }
    for notice in warnings(&config) {
        tracing::warn!(notice, "risky or unintended setting");
    }
    let application = Application::build(&config, MigrationPolicy::IfEmbedded).await?;
    application.initialize(&config).await?;
    let background_tasks = application.spawn_background_tasks();

    let state = AppState::new(application.service.clone());
    let settings = HttpSettings {
        request_timeout: Duration::from_secs(u64::from(config.requests.timeout_seconds)),
        serves_operations: config.operations_listen.is_none(),
    };
    let (stopping, servers) = (CancellationToken::new(), TaskTracker::new());
    let public = bind(config.listen, load_tls(&config)?, "listen").await?;
    tracing::info!(address = %public.local_addr()?, issuer = %config.issuer, "listening");
    servers.spawn(serve(public, router(state.clone(), settings), stopping.clone().cancelled_owned()));
    if let Some(address) = config.operations_listen {
        let operations = bind(address, None, "operations_listen").await?;
        tracing::info!(address = %operations.local_addr()?, "listening for operations");
        servers.spawn(serve(operations, operations_router(state, settings), stopping.clone().cancelled_owned()));
    }
    if development {
        eprint_line(dev::quickstart(&config.issuer));
    }
    shutdown_signal().await?;
    tracing::info!("stopping, finishing requests in flight");
    stopping.cancel();
    application.service.end_streams();
    servers.close();
    servers.wait().await;
    background_tasks.shutdown().await;
    application.service.shutdown().await;
    tracing::info!("stopped");
    Ok(())
}

async fn bind(address: SocketAddr, tls: Option<Tls>, key: &str) -> Result<Listener, CliError> {
    let with_remedy = |error: std::io::Error| {
        let remedy = "choose a free address, or stop the process that uses it";
        CliError::new(format!("`{key}`: can't listen on {address}: {error}; {remedy}"))
    };
    Listener::bind(address, tls).await.map_err(with_remedy)
}

fn load_tls(config: &Config) -> Result<Option<Tls>, CliError> {
    let load = |files: &errand::config::TlsConfig| {
        let (certificates, key): (&PathBuf, &PathBuf) = (&files.certificate_file, &files.key_file);
        Tls::load(certificates, key)
    };
    config.tls.as_ref().map(load).transpose().map_err(CliError::from)
}

async fn shutdown_signal() -> Result<(), CliError> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    Ok(())
}
