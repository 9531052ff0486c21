//! A server in a process of its own, on a core of its own: what it uses can be told from what the load uses.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{load, machine};

/// The core that servers are on.
pub const SERVER_CORE: usize = 0;

/// A running server.
pub struct Server {
    pub address: SocketAddr,
    child: Child,
}

impl Server {
    /// Starts a program that will serve this address, and waits until it does. Its log goes into a file, as it would.
    pub async fn start(program: &Path, arguments: &[&str], address: SocketAddr, log: &Path) -> Self {
        let mut command = if machine::has_taskset() {
            let mut command = Command::new("taskset");
            command.args(["-c", &SERVER_CORE.to_string()]).arg(program);
            command
        } else {
            Command::new(program)
        };
        let log_file = File::create(log).unwrap();
        let child = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log_file).spawn();
        let mut server = Self { address, child: child.unwrap() };
        let started = Instant::now();
        while !load::is_answering(address).await {
            let ended = server.child.try_wait().unwrap();
            let late = started.elapsed() > Duration::from_secs(30);
            let said = || std::fs::read_to_string(log).unwrap_or_default();
            assert!(ended.is_none() && !late, "{} does not serve: {}", program.display(), said());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        server
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The CPU time it has used, in microseconds.
    pub fn cpu_time(&self) -> Option<f64> {
        machine::cpu_time(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing that it has done is needed any more. It may be gone already, and that is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address that nobody holds.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
