//! Three replicas on one Postgres of our own, each behind a proxy of its own.

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

/// How many replicas there are.
pub const REPLICAS: usize = 3;

/// All of it; it is gone when this is dropped.
pub struct Cluster {
    /// `iss` of the tokens. It names the first replica, and all of them issue under it.
    pub issuer: String,
    pub replicas: Vec<Replica>,
    pub postgres: PostgresServer,
    pub idp: Key,
    pub planner: Key,
    folder: TempDir,
}

/// A replica: where it is, and its process if it has one.
pub struct Replica {
    pub url: String,
    pub proxy: Proxy,
    number: usize,
    process: Mutex<Option<Child>>,
}

/// What a replica runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `errand serve`.
    Errand,
    /// This test program, as a server whose monotonic clock stands still (see `frozen.rs`).
    Frozen,
}

/// The secret of a client: 256 bits, and no secret at all.
pub fn secret(client: &str) -> String {
    b64(format!("{client:-<32}"))
}

impl Cluster {
    /// Everything but the replicas' processes.
    pub async fn prepare() -> Self {
        // For reqwest; somebody may have done it before in this process.
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
        // All are held until each has its own.
        let holds = (0..REPLICAS).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect::<Vec<_>>();
        let addresses = holds.iter().map(|hold| hold.local_addr().unwrap()).collect::<Vec<_>>();
        drop(holds);
        let mut replicas = Vec::new();
        for (number, address) in addresses.iter().enumerate() {
            let proxy = Proxy::start(postgres.address.subscribe()).await;
            configure(folder.path(), &number.to_string(), addresses[0], *address, &postgres.url_through(proxy.address));
            replicas.push(Replica { url: format!("http://{address}"), proxy, number, process: Mutex::new(None) });
        }
        let direct = postgres.url();
        configure(folder.path(), "direct", addresses[0], addresses[0], &direct);
        let ground = Self { issuer: format!("http://{}", addresses[0]), replicas, postgres, idp, planner, folder };
        let (good, said) = ground.run_errand(&["migrate"]).await;
        assert!(good, "{said}");
        ground
    }

    /// A command for who runs it, straight at the database. Returns whether it went well, and what it said.
    pub async fn run_errand(&self, words: &[&str]) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_errand"));
        command.args(words).args(["--config", "direct.toml"]).current_dir(&self.folder).env_clear();
        let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output()).await.unwrap().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Starts a replica's process, if it has none that runs.
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

    /// Waits until a replica is ready, and starts it again if it has ended meanwhile.
    pub async fn wait_until_ready(&self, number: usize, program: Program) {
        let http = Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
        let url = format!("{}/readyz", self.replicas[number].url);
        for _ in 0..600 {
            if http.get(&url).send().await.is_ok_and(|answer| answer.status() == 200) {
                return;
            }
            self.start(number, program);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("replica {number} does not come up: {}", self.log_text(number));
    }

    /// Waits until a replica answers from memory.
    pub async fn wait_until_leased(&self, number: usize) {
        let http = Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
        let url = format!("{}/metrics", self.replicas[number].url);
        for _ in 0..600 {
            let answer = http.get(&url).send().await.unwrap().text().await.unwrap();
            if answer.lines().any(|line| line == "errand_lease_valid 1") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("replica {number} gets no lease: {}", self.log_text(number));
    }

    /// The end of what a replica wrote into its log.
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
    /// Ends the process at once, as a crash would.
    pub fn kill(&self) {
        if let Some(mut child) = self.process.lock().unwrap().take() {
            // It may have ended by itself, and that is as good.
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// Sends the process a signal: `STOP`, `CONT`, `TERM`.
    pub fn signal(&self, signal: &str) {
        let process = self.process.lock().unwrap();
        let Some(child) = &*process else { return };
        // The shell has a `kill` of its own, everywhere.
        let sent = Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status().unwrap();
        assert!(sent.success(), "replica {} is gone", self.number);
    }

    /// Tells it to stop, and waits until everything is durable.
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
        panic!("replica {} does not stop", self.number);
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A PostgreSQL of our own, by `./dev postgres`: durable, and restarted as we please.
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

    /// Restarts it: `fast` as an operator does, `immediate` as after a crash.
    pub async fn restart(&self, mode: &'static str) {
        let url = run_dev_script(&self.state, &["restart", mode]).await;
        self.address.send_replace(address_of(&url));
        *self.url.lock().unwrap() = url;
    }

    pub fn url(&self) -> String {
        self.url.lock().unwrap().to_string()
    }

    /// Its URL, by way of a proxy.
    fn url_through(&self, proxy: SocketAddr) -> String {
        let mut url = self.url.lock().unwrap().clone();
        url.set_port(Some(proxy.port())).unwrap();
        url.to_string()
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // A test that fails already says why.
        let _ = dev_command(&self.state, &["stop"]).output();
    }
}

fn address_of(url: &Url) -> SocketAddr {
    format!("{}:{}", url.host_str().unwrap(), url.port().unwrap()).parse().unwrap()
}

async fn run_dev_script(state: &Path, words: &[&str]) -> Url {
    let mut command = dev_command(state, words);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "./dev postgres {words:?}: {said}");
    Url::parse(String::from_utf8_lossy(&output.stdout).trim()).unwrap()
}

fn dev_command(state: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("dev"));
    command.arg("postgres").args(words).env("ERRAND_POSTGRES_STATE", state).stdin(Stdio::null());
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
