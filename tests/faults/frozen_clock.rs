//! A replica whose monotonic clock stands still: in its own eyes a lease that it has once had never lapses. It is this test
//! program, started again. The program that is shipped has no switch for it.

use std::{env, path::Path, process::Command, sync::Arc, time::Duration};

use errand::{
    adapters::system::SystemClock,
    bootstrap::{Application, MigrationPolicy},
    config::Config,
    domain::time::Timestamp,
    http::{AppState, HttpSettings, Listener, router, serve},
    ports::Clock,
};

/// Names the configuration file to the process that is started.
const CONFIG_VARIABLE: &str = "ERRAND_FROZEN_REPLICA";

struct FrozenClock(SystemClock, Duration);

impl Clock for FrozenClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        self.1
    }
}

/// What starts it, for this configuration file.
pub fn command(config: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "frozen::run_replica_with_frozen_clock", "--nocapture"]);
    command.env(CONFIG_VARIABLE, config);
    command
}

/// What `errand serve` does, with that clock.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "no test: it is what another test starts as a process of its own"]
async fn run_replica_with_frozen_clock() {
    let file = env::var(CONFIG_VARIABLE).expect("the test that starts it names a configuration file");
    let config = Config::load(Path::new(&file), &|_| None).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let clock = SystemClock::new();
    let clock = Arc::new(FrozenClock(clock, clock.monotonic()));
    let house = Application::build_with_clock(clock, &config, MigrationPolicy::IfEmbedded).await.unwrap();
    house.initialize(&config).await.unwrap();
    let _tasks = house.spawn_background_tasks();
    let listener = Listener::bind(config.listen, None).await.unwrap();
    serve(listener, router(AppState::new(house.service.clone()), HttpSettings::default()), std::future::pending())
        .await;
}
