//! The command `errand serve`.

use std::{net::SocketAddr, pin::pin, time::Duration};

use errand::{
    app::ApplyOptions,
    bootstrap::{Application, MigrationPolicy},
    config::{Config, warnings},
    domain::configuration::FileOrder,
    http::{AppState, HttpSettings, Listener, Tls, operations_router, router, serve},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    CliError, ServeArgs, dev,
    log::{self, SetLogLevel},
    output::eprint_line,
    reload::{Reloader, load_config},
    runtime::block_on,
};

/// Serves with a configuration file, or for development without one.
pub(super) fn run(arguments: &ServeArgs) -> Result<(), CliError> {
    let config = load_config(arguments)?;
    let set_log_level = log::init(&config)?;
    block_on(run_server(config, arguments, set_log_level))
}

async fn run_server(config: Config, arguments: &ServeArgs, set_log_level: SetLogLevel) -> Result<(), CliError> {
    // Before anything else: without a handler, the signal ends the process.
    let mut hangup = signal(SignalKind::hangup())?;
    let development = arguments.config_args.dev;
    if development {
        tracing::warn!(
            "FOR DEVELOPMENT ONLY: demo objects, keys and secrets in ./errand-dev; listening on loopback only"
        );
    }
    for notice in warnings(&config) {
        tracing::warn!(notice, "risky or unintended setting");
    }
    // Before anything is written: a process that can't serve must not change the store.
    let tls = load_tls(&config)?;
    let public = bind(config.listen, tls.clone(), "listen").await?;
    let operations = match config.operations_listen {
        Some(address) => Some(bind(address, None, "operations_listen").await?),
        None => None,
    };
    let application = Application::build(&config, MigrationPolicy::IfEmbedded).await?;
    initialize(&application, &config, arguments).await?;
    let background_tasks = application.spawn_background_tasks();
    if let Some(tls) = tls.clone() {
        background_tasks.spawn(tls.watch());
    }

    let state = AppState::new(application.service.clone());
    let settings = HttpSettings {
        request_timeout: Duration::from_secs(u64::from(config.requests.timeout_seconds)),
        serves_operations: config.operations_listen.is_none(),
    };
    let (stopping, servers) = (CancellationToken::new(), TaskTracker::new());
    tracing::info!(address = %public.local_addr()?, issuer = %config.issuer, "listening");
    servers.spawn(serve(public, router(state.clone(), settings), stopping.clone().cancelled_owned()));
    if let Some(operations) = operations {
        tracing::info!(address = %operations.local_addr()?, "listening for operations");
        servers.spawn(serve(operations, operations_router(state, settings), stopping.clone().cancelled_owned()));
    }
    if development {
        eprint_line(dev::quickstart(&config.issuer));
    }
    let reloader =
        Reloader { arguments, application: &application, started_with: &config, tls, set_log_level: &set_log_level };
    let mut requests = application.service.subscribe_reload_requests();
    let mut shutdown = pin!(shutdown_signal());
    loop {
        tokio::select! {
            stopped = &mut shutdown => break stopped?,
            _ = hangup.recv() => reloader.reload("SIGHUP").await,
            // The sender is a field of the service, so it outlives this loop.
            _ = requests.changed() => reloader.reload("errand config reload").await,
        }
    }
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

/// Applies the configuration file and creates the first keys.
async fn initialize(application: &Application, config: &Config, arguments: &ServeArgs) -> Result<(), CliError> {
    if arguments.no_apply {
        application.check_issuer().await?;
        application.rotate_due_keys("start").await?;
        return Ok(());
    }
    let for_replica = ApplyOptions::for_replica(&application.service.settings().lease.replica_name);
    let options = if arguments.config_args.dev {
        // The program declares the demo objects, and an older program is not a mistake.
        ApplyOptions {
            order: FileOrder::AcceptOlder,
            max_ended_tasks: u64::MAX,
            accepts_other_issuer: true,
            ..for_replica
        }
    } else {
        ApplyOptions { max_ended_tasks: arguments.accept_ending, ..for_replica }
    };
    Ok(application.initialize_with(config, &options).await?)
}

async fn bind(address: SocketAddr, tls: Option<Tls>, key: &str) -> Result<Listener, CliError> {
    let with_remedy = |error: std::io::Error| {
        let remedy = "choose a free address, or stop the process that uses it";
        CliError::new(format!("`{key}`: can't listen on {address}: {error}; {remedy}"))
    };
    Listener::bind(address, tls).await.map_err(with_remedy)
}

fn load_tls(config: &Config) -> Result<Option<Tls>, CliError> {
    let load = |files: &errand::config::TlsConfig| Tls::load(&files.certificate_file, &files.key_file);
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
