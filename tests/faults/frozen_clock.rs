//! A replica whose monotonic clock does not advance: from its own point of view, a lease that it
//! once held never lapses. The replica is this test program, started as another process. The
//! released program has no switch for a frozen clock.

use std::{env, path::Path, process::Command, sync::Arc, time::Duration};

use errand::{
    adapters::system::SystemClock,
    bootstrap::{Application, MigrationPolicy},
    config::Config,
    domain::time::Timestamp,
    http::{AppState, HttpSettings, Listener, router, serve},
    ports::Clock,
};

/// The environment variable that passes the path of the configuration file to the process.
const CONFIG_VARIABLE: &str = "ERRAND_FROZEN_REPLICA";

/// The system clock with a constant monotonic time.
struct FrozenClock(SystemClock, Duration);

impl Clock for FrozenClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        self.1
    }
}

/// Returns the command that starts the replica with this configuration file.
pub fn command(config: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "frozen_clock::run_replica_with_frozen_clock", "--nocapture"]);
    command.env(CONFIG_VARIABLE, config);
    command
}

/// Runs the equivalent of `errand serve` with the frozen clock.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "not a test: other tests start it as a process of its own"]
async fn run_replica_with_frozen_clock() {
    let file = env::var(CONFIG_VARIABLE).expect("the starting test sets the configuration file");
    let config = Config::load(Path::new(&file), &|_| None).unwrap_or_else(|error| panic!("{error}"));
    let clock = SystemClock::new();
    let clock = Arc::new(FrozenClock(clock, clock.monotonic()));
    let application = Application::build_with_clock(clock, &config, MigrationPolicy::IfEmbedded).await.unwrap();
    application.initialize(&config).await.unwrap();
    let _tasks = application.spawn_background_tasks();
    let listener = Listener::bind(config.listen.address, None).await.unwrap();
    serve(
        listener,
        router(AppState::new(application.service.clone()), HttpSettings::default()),
        std::future::pending(),
    )
    .await;
}
