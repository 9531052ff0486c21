//! The command `errand serve`.

use std::{net::SocketAddr, pin::pin, time::Duration};

use errand::{
    adapters::{
        system::{raise_descriptor_limit, read_process_usage},
        telemetry::adopt_remote_parent,
    },
    app::ApplyOptions,
    bootstrap::{Application, MigrationPolicy},
    config::{self, Config, InProgress, Limits, warnings},
    domain::configuration::FileOrder,
    http::{
        AppState, ConnectionLimits, ForwardedHeader, HttpSettings, Listener, RequestLimits, Tls, TrustedProxies,
        operations_router, router, serve,
    },
    ports::ErrorChain,
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

/// File descriptors for everything but clients and the store: the operations listener, fetched keys
/// and catalogues, the log, the database file, the runtime.
const RESERVED_DESCRIPTORS: u64 = 400;
/// Maximum connections of the operations listener.
const OPERATIONS_CONNECTIONS: usize = 256;

/// Serves with a configuration file, or for development without one.
pub(super) fn run(arguments: &ServeArgs) -> Result<(), CliError> {
    let config = load_config(arguments)?;
    block_on(async {
        let (set_log_level, traces) = log::init(&config)?;
        let served = run_server(config, arguments, set_log_level).await;
        traces.shutdown().await;
        served
    })
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
    let public = bind(config.listen.address, tls.clone(), "listen").await?;
    let operations = match config.operations_listen {
        Some(address) => Some(bind(address, None, "operations_listen").await?),
        None => None,
    };
    let public = public.with_limits(connection_limits(&config));
    let application = Application::build(&config, MigrationPolicy::IfEmbedded).await?;
    initialize(&application, &config, arguments).await?;
    let background_tasks = application.spawn_background_tasks();
    if let Some(tls) = tls.clone() {
        background_tasks.spawn(tls.watch());
    }

    let state = AppState::new(application.service.clone()).with_process_usage(read_process_usage);
    let state = state.with_trace_context(adopt_remote_parent);
    let settings = HttpSettings {
        request_timeout: Duration::from_secs(u64::from(config.requests.timeout_seconds)),
        serves_operations: config.operations_listen.is_none(),
        limits: request_limits(&config.limits.in_progress),
        is_tls: config.tls.is_some(),
    };
    let (stopping, servers) = (CancellationToken::new(), TaskTracker::new());
    let public = public.with_counters(state.metrics.connections());
    tracing::info!(address = %public.local_addr()?, issuer = %config.issuer, "listening");
    servers.spawn(serve(public, router(state.clone(), settings), stopping.clone().cancelled_owned()));
    if let Some(operations) = operations {
        let operations =
            operations.with_limits(ConnectionLimits { total: OPERATIONS_CONNECTIONS, ..ConnectionLimits::default() });
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

/// Returns the limits of connections. Raises the limit of file descriptors, and lowers the number
/// of connections to what it allows.
fn connection_limits(config: &Config) -> ConnectionLimits {
    let Limits { connections, connections_per_peer, keep_alive, headers, unread, .. } = config.limits;
    let descriptors = match raise_descriptor_limit() {
        Ok((before, after)) => {
            tracing::info!(before, after, "the limit of file descriptors is the hard limit");
            after
        }
        Err(error) => {
            tracing::warn!(error = %ErrorChain(&error), "the limit of file descriptors stays as it was");
            None
        }
    };
    let of_store = u64::from(config.store.max_connections).saturating_add(config.store.list_connections.into());
    let reserved = RESERVED_DESCRIPTORS.saturating_add(of_store);
    let available = descriptors.map(|limit| limit.saturating_sub(reserved.min(limit / 2)));
    let total = usize::try_from(available.unwrap_or(u64::MAX).min(connections.into())).unwrap_or(usize::MAX);
    if available.is_some_and(|available| available < connections.into()) {
        tracing::warn!(
            limit = total,
            configured = connections,
            "fewer connections than `connections` in `[limits]`: the limit of file descriptors is too low; raise it, \
             for example with `LimitNOFILE=` of systemd or `ulimit -n`"
        );
    }
    let bytes = |megabytes: u32| usize::try_from(megabytes).unwrap_or(usize::MAX).saturating_mul(1 << 20);
    ConnectionLimits {
        total,
        per_peer: usize::try_from(connections_per_peer).unwrap_or(usize::MAX),
        keep_alive,
        headers,
        progress: unread,
        unread_total: bytes(config.limits.unread_megabytes),
        incomplete_total: bytes(config.limits.incomplete_megabytes),
        refusals_per_second: config.limits.refusals_per_second,
        proxies: TrustedProxies {
            networks: config.listen.trusted_proxies.iter().copied().collect(),
            header: match config.listen.forwarded_header {
                config::ForwardedHeader::XForwardedFor => ForwardedHeader::XForwardedFor,
                config::ForwardedHeader::Forwarded => ForwardedHeader::Forwarded,
            },
        },
        ..ConnectionLimits::default()
    }
}

fn request_limits(configured: &InProgress) -> RequestLimits {
    let limit = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
    RequestLimits {
        token: limit(configured.token),
        introspection: limit(configured.introspection),
        evaluation: limit(configured.evaluation),
        revocation: limit(configured.revocation),
        self_service: limit(configured.self_service),
        admin_revocation: limit(configured.admin_revocation),
        administration: limit(configured.administration),
        documents: limit(configured.documents),
    }
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
