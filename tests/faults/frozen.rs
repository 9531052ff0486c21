//! A replica whose monotonic clock stands still: in its own eyes a lease that it has once had never lapses. It is this test
//! program, started again. The program that is shipped has no switch for it.

use std::{env, path::Path, process::Command, sync::Arc, time::Duration};

use errand::{
    adapters::system::SystemClock,
    config::Config,
    domain::time::Timestamp,
    house::{House, Migrations},
    http::{App, EdgeSettings, Listener, router, serve},
    ports::Clock,
};

/// Names the configuration file to the process that is started.
const CONFIG: &str = "ERRAND_FROZEN_REPLICA";

struct Frozen(SystemClock, Duration);

impl Clock for Frozen {
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
    command.args(["--ignored", "--exact", "frozen::a_replica_whose_clock_stands_still", "--nocapture"]);
    command.env(CONFIG, config);
    command
}

/// What `errand serve` does, with that clock.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "no test: it is what another test starts as a process of its own"]
async fn a_replica_whose_clock_stands_still() {
    let file = env::var(CONFIG).expect("the test that starts it names a configuration file");
    let config = Config::load(Path::new(&file), &|_| None).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let clock = SystemClock::new();
    let clock = Arc::new(Frozen(clock, clock.monotonic()));
    let house = House::open_by(clock, &config, Migrations::IfEmbedded).await.unwrap();
    house.furnish(&config).await.unwrap();
    let _tasks = house.tend();
    let listener = Listener::bind(config.listen, None).await.unwrap();
    serve(listener, router(App::new(house.service.clone()), EdgeSettings::default()), std::future::pending()).await;
}
