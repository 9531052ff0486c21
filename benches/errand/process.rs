//! A server in a separate process on its own core, so that its CPU time is distinct from that of
//! the load.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{load, machine};

/// Core of the servers.
pub const SERVER_CORE: usize = 0;

/// A running server.
pub struct Server {
    pub address: SocketAddr,
    child: Child,
}

impl Server {
    /// Starts a server program and waits until it listens at this address. Its log is written to a
    /// file, as in production.
    pub async fn start(program: &Path, arguments: &[&str], address: SocketAddr, log: &Path) -> Self {
        Self::start_by(machine::pinned(SERVER_CORE, program), program, arguments, address, log).await
    }

    /// Starts a server program by a command that ends in its path.
    pub async fn start_by(
        mut command: Command,
        program: &Path,
        arguments: &[&str],
        address: SocketAddr,
        log: &Path,
    ) -> Self {
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

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns its CPU time in microseconds.
    pub fn cpu_time(&self) -> Option<f64> {
        machine::cpu_time(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its data is not needed any more. The process may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a free address.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
