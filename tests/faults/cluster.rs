//! Three replicas on one PostgreSQL server of the test, each behind a proxy of its own.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use reqwest::Client;
use tempfile::TempDir;
use tokio::sync::watch;
use url::Url;

use crate::{
    idp::{Key, b64},
    proxy::Proxy,
};

/// Number of replicas.
pub const REPLICAS: usize = 3;

/// The replicas and their database. Dropping the cluster ends all processes and deletes all files.
pub struct Cluster {
    /// The `iss` of the tokens: the URL of the first replica. All replicas issue under it.
    pub issuer: String,
    pub replicas: Vec<Replica>,
    pub postgres: PostgresServer,
    pub idp: Key,
    pub planner: Key,
    folder: TempDir,
}

/// A replica: its URL, its proxy to the database, and its process if it has one.
pub struct Replica {
    pub url: String,
    pub proxy: Proxy,
    number: usize,
    process: Mutex<Option<Child>>,
}

/// The program that a replica runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `errand serve`.
    Errand,
    /// This test program as a server with a frozen monotonic clock (see `frozen_clock.rs`).
    Frozen,
}

/// Returns the secret of a client: 256 bits that follow from its name.
pub fn secret(client: &str) -> String {
    b64(format!("{client:-<32}"))
}

impl Cluster {
    /// Starts PostgreSQL and the proxies, writes the configuration, and migrates the database.
    /// Starts no replica.
    pub async fn prepare() -> Self {
        // reqwest needs a default provider. Another test of this process may have installed it
        // already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let postgres = PostgresServer::start(folder.path()).await;
        let (idp, planner) = (Key::new("idp-1"), Key::new("planner-1"));
        write(folder.path(), "kek", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=");
        write(folder.path(), "idp.json", &idp.jwks().to_string());
        write(folder.path(), "planner.json", &planner.jwks().to_string());
        for client in ["reader", "writer", "stranger", "files", "notes", "ops", "audit"] {
            write(folder.path(), &format!("{client}.secret"), &secret(client));
        }
        // All listeners stay bound until each replica has an address, so that all addresses differ.
        let listeners = (0..REPLICAS).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect::<Vec<_>>();
        let addresses = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect::<Vec<_>>();
        drop(listeners);
        let mut replicas = Vec::new();
        for (number, address) in addresses.iter().enumerate() {
            let proxy = Proxy::start(postgres.address.subscribe()).await;
            configure(folder.path(), &number.to_string(), addresses[0], *address, &postgres.url_through(proxy.address));
            replicas.push(Replica { url: format!("http://{address}"), proxy, number, process: Mutex::new(None) });
        }
        let direct = postgres.url();
        configure(folder.path(), "direct", addresses[0], addresses[0], &direct);
        let cluster = Self { issuer: format!("http://{}", addresses[0]), replicas, postgres, idp, planner, folder };
        let (succeeded, output) = cluster.run_errand(&["migrate"]).await;
        assert!(succeeded, "`errand migrate` failed: {output}");
        cluster
    }

    /// Runs an `errand` command directly at the database. Returns whether it succeeded, and its
    /// output.
    pub async fn run_errand(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_errand"));
        command.args(arguments).args(["--config", "direct.toml"]).current_dir(&self.folder).env_clear();
        let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output()).await.unwrap().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    /// Starts the process of a replica, unless it runs already.
    pub fn start(&self, number: usize, program: Program) {
        let replica = &self.replicas[number];
        let mut process = replica.process.lock().unwrap();
        if process.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none()) {
            return;
        }
        let config = format!("{number}.toml");
        let mut command = match program {
            Program::Errand => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_errand"));
                command.args(["serve", "--config", &config]).env_clear();
                command
            }
            Program::Frozen => crate::frozen_clock::command(&config),
        };
        let log = File::options().create(true).append(true).open(self.log_path(number)).unwrap();
        command.current_dir(&self.folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        *process = Some(command.spawn().unwrap());
    }

    /// Waits until a replica is ready, and restarts it if its process has ended.
    pub async fn wait_until_ready(&self, number: usize, program: Program) {
        let http = Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
        let url = format!("{}/readyz", self.replicas[number].url);
        for _ in 0..600 {
            if http.get(&url).send().await.is_ok_and(|response| response.status() == 200) {
                return;
            }
            self.start(number, program);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("replica {number} is not ready after 600 attempts: {}", self.log_text(number));
    }

    /// Waits until a replica holds a lease, and so answers from memory.
    pub async fn wait_until_leased(&self, number: usize) {
        let http = Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
        let url = format!("{}/metrics", self.replicas[number].url);
        for _ in 0..600 {
            let response = http.get(&url).send().await.unwrap().text().await.unwrap();
            if response.lines().any(|line| line == "errand_lease_valid 1") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("replica {number} has no lease after 600 attempts: {}", self.log_text(number));
    }

    /// Returns the last 20 lines of a replica's log.
    pub fn log_text(&self, number: usize) -> String {
        let text = fs::read_to_string(self.log_path(number)).unwrap_or_default();
        let lines = text.lines().rev().take(20).collect::<Vec<_>>();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn log_path(&self, number: usize) -> std::path::PathBuf {
        self.folder.path().join(format!("{number}.log"))
    }
}

impl Replica {
    /// Kills the process, as a crash would.
    pub fn kill(&self) {
        if let Some(mut child) = self.process.lock().unwrap().take() {
            // The process may have exited already. That is equivalent.
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// Sends the process a signal: `STOP`, `CONT`, `TERM`.
    pub fn signal(&self, signal: &str) {
        let process = self.process.lock().unwrap();
        let Some(child) = &*process else { return };
        // `sh` has a built-in `kill` on every platform.
        let sent = Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status().unwrap();
        assert!(sent.success(), "the process of replica {} does not run", self.number);
    }

    /// Stops the process by `TERM`, and waits until it exits: by then all its writes are durable.
    pub async fn stop(&self) {
        self.signal("TERM");
        for _ in 0..600 {
            let ended = match &mut *self.process.lock().unwrap() {
                Some(child) => child.try_wait().unwrap().is_some(),
                None => true,
            };
            if ended {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("replica {} has not exited after `TERM`", self.number);
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A PostgreSQL server of the test, run by `./dev postgres`. It is durable, and the test can
/// restart it.
pub struct PostgresServer {
    state: std::path::PathBuf,
    url: Mutex<Url>,
    pub address: watch::Sender<SocketAddr>,
}

impl PostgresServer {
    async fn start(folder: &Path) -> Self {
        let state = folder.join("postgres.state");
        let url = run_dev_script(&state, &["start"]).await;
        let address = watch::Sender::new(address_of(&url));
        Self { state, url: Mutex::new(url), address }
    }

    /// Restarts the server: `fast` as by an operator, `immediate` as after a crash.
    pub async fn restart(&self, mode: &'static str) {
        let url = run_dev_script(&self.state, &["restart", mode]).await;
        self.address.send_replace(address_of(&url));
        *self.url.lock().unwrap() = url;
    }

    pub fn url(&self) -> String {
        self.url.lock().unwrap().to_string()
    }

    /// Returns the URL of the server through a proxy.
    fn url_through(&self, proxy: SocketAddr) -> String {
        let mut url = self.url.lock().unwrap().clone();
        url.set_port(Some(proxy.port())).unwrap();
        url.to_string()
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // An error here must not hide the failure of a test.
        let _ = dev_command(&self.state, &["stop"]).output();
    }
}

fn address_of(url: &Url) -> SocketAddr {
    format!("{}:{}", url.host_str().unwrap(), url.port().unwrap()).parse().unwrap()
}

async fn run_dev_script(state: &Path, arguments: &[&str]) -> Url {
    let mut command = dev_command(state, arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`./dev postgres` with {arguments:?} failed: {errors}");
    Url::parse(String::from_utf8_lossy(&output.stdout).trim()).unwrap()
}

fn dev_command(state: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("dev"));
    command.arg("postgres").args(arguments).env("ERRAND_POSTGRES_STATE", state).stdin(Stdio::null());
    command
}

fn configure(folder: &Path, name: &str, issuer: SocketAddr, listen: SocketAddr, store: &str) {
    write(folder, &format!("{name}-store-url"), store);
    let text = include_str!("../support/server.toml")
        .replace("listen = \"ADDRESS\"", &format!("listen = \"{listen}\""))
        .replace("ADDRESS", &issuer.to_string())
        .replace("store-url", &format!("{name}-store-url"));
    write(folder, &format!("{name}.toml"), &format!("{text}\n[log]\nlevel = \"warn\"\n"));
}

fn write(folder: &Path, name: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}
