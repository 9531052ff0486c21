//! `errand serve`.

use std::{
    io::IsTerminal,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use errand::{
    adapters::system::Dice,
    config::{Config, DEV_LISTEN, LogFormat, notices},
    house::{House, Migrations},
    http::{App, EdgeSettings, Listener, Tls, operations_router, router, serve},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing_subscriber::EnvFilter;

use super::{CliFault, config, dev, operator::block_on, output::tell};

/// Serves by a file, or for development without one.
pub(super) fn run(file: Option<&Path>, listen: Option<SocketAddr>) -> Result<(), CliFault> {
    let config = match file {
        Some(file) => config::load(file)?,
        None => Config::dev(Path::new("."), listen.unwrap_or(DEV_LISTEN), &Dice::new()?).map_err(CliFault::new)?,
    };
    start_log(&config)?;
    block_on(stay(config, file.is_none()))
}

async fn stay(config: Config, development: bool) -> Result<(), CliFault> {
    if development {
        tracing::warn!(
            "FOR DEVELOPMENT: demo objects, keys and secrets in ./errand-dev, reachable from this machine only"
        );
    }
    for notice in notices(&config) {
        tracing::warn!(notice, "configuration");
    }
    let house = House::open(&config, Migrations::IfEmbedded).await?;
    house.furnish(&config).await?;
    let tasks = house.tend();

    let app = App::new(house.service.clone());
    let settings = EdgeSettings {
        request_timeout: Duration::from_secs(u64::from(config.requests.timeout_seconds)),
        operations_here: config.operations_listen.is_none(),
    };
    let (stop, stopped) = watch::channel(false);
    let mut servers = tokio::task::JoinSet::new();
    let public = bind(config.listen, tls(&config)?, "listen").await?;
    tracing::info!(address = %public.address()?, issuer = %config.issuer, "listening");
    servers.spawn(serve(public, router(app.clone(), settings), until(stopped.clone())));
    if let Some(address) = config.operations_listen {
        let operations = bind(address, None, "operations_listen").await?;
        tracing::info!(address = %operations.address()?, "listening for operations");
        servers.spawn(serve(operations, operations_router(app, settings), until(stopped)));
    }
    if development {
        tell(dev::try_it(&config.issuer));
    }
    told_to_stop().await?;
    tracing::info!("stopping: finishing what is under way");
    stop.send_replace(true);
    house.service.end_streams();
    while servers.join_next().await.is_some() {}
    drop(tasks);
    house.service.finish().await;
    tracing::info!("stopped");
    Ok(())
}

async fn bind(address: SocketAddr, tls: Option<Tls>, key: &str) -> Result<Listener, CliFault> {
    let explain = |e: std::io::Error| {
        CliFault::new(format!("{key}: can't listen at {address}: {e}: choose a free address, or end what holds it"))
    };
    Listener::bind(address, tls).await.map_err(explain)
}

fn tls(config: &Config) -> Result<Option<Tls>, CliFault> {
    let load = |files: &errand::config::Tls| {
        let (certificates, key): (&PathBuf, &PathBuf) = (&files.certificate_file, &files.key_file);
        Tls::load(certificates, key)
    };
    config.tls.as_ref().map(load).transpose().map_err(CliFault::from)
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, and then it is time to stop as well.
    let _: Result<_, watch::error::RecvError> = stopped.wait_for(|stopped| *stopped).await;
}

async fn told_to_stop() -> Result<(), CliFault> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    Ok(())
}

fn start_log(config: &Config) -> Result<(), CliFault> {
    let filter = EnvFilter::try_new(&config.log.level).map_err(CliFault::during("[log] level"))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let started = match config.log.format {
        // A request has one span, so the list of spans would only repeat it.
        LogFormat::Json => log.json().flatten_event(true).with_span_list(false).try_init(),
        LogFormat::Pretty => log.try_init(),
    };
    started.map_err(CliFault::during("start the log"))
}
