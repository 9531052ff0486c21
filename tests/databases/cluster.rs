//! PostgreSQL servers of a test.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tempfile::TempDir;

use crate::{
    machine::{find_program, report_not_run},
    port::ReservedPort,
};

/// The superuser.
pub const USER: &str = "errand";

/// A server. Dropping it stops it and deletes its data.
pub struct PostgresServer {
    folder: TempDir,
    programs: PathBuf,
    port: ReservedPort,
}

impl PostgresServer {
    /// Starts a server with an empty database `errand`. `None`: this machine has no PostgreSQL,
    /// which is reported.
    pub async fn start(test: &str) -> Option<Self> {
        let Some(server) = Self::create() else {
            report_not_run(test, "there are no programs of PostgreSQL 15 or later; install postgresql");
            return None;
        };
        let data = server.data();
        let options = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-U", USER];
        server.run("initdb", options.iter().map(OsStr::new).chain([OsStr::new("-D"), data.as_os_str()]));
        server.resume();
        let mut admin = PgConnection::connect(&server.url_of("postgres")).await.unwrap();
        admin.execute("CREATE DATABASE errand").await.unwrap();
        admin.close().await.unwrap();
        Some(server)
    }

    fn create() -> Option<Self> {
        let programs = find_programs()?;
        let folder = tempfile::Builder::new().prefix("errand-db.").tempdir_in("/tmp").unwrap();
        let server = Self { folder, programs, port: ReservedPort::new() };
        if let Some(user) = server_user() {
            assert!(
                Command::new("chown").args([user, server.folder.path().to_str().unwrap()]).status().unwrap().success()
            );
        }
        Some(server)
    }

    /// Starts a hot standby that follows this server. `None`: these programs can't copy a server,
    /// which is reported.
    pub fn start_standby(&self, test: &str) -> Option<Self> {
        if !self.programs.join("pg_basebackup").is_file() {
            report_not_run(test, "there is no pg_basebackup beside the server's programs");
            return None;
        }
        // The programs are there, since they run the primary.
        let standby = Self::create().unwrap();
        let data = standby.data();
        let (port, data) = (self.port().to_string(), data.to_str().unwrap().to_owned());
        let options = ["-h", "127.0.0.1", "-p", &port, "-U", USER, "-D", &data, "-R", "--checkpoint=fast", "--no-sync"];
        standby.run("pg_basebackup", options.iter().map(OsStr::new));
        standby.resume();
        Some(standby)
    }

    /// Makes a standby the primary.
    pub fn promote(&self) {
        self.control(&["promote", "-w"]);
    }

    /// Stops the server at once, as a crash would.
    pub fn crash(&self) {
        self.control(&["stop", "-w", "-m", "immediate"]);
    }

    /// Starts the server, which was stopped.
    pub fn resume(&self) {
        let folder = self.folder.path().display();
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories='{folder}' -c fsync=off -c max_connections=60",
            self.port()
        );
        let log = self.folder.path().join("server.log");
        self.control(&["start", "-w", "-t", "60", "-l", log.to_str().unwrap(), "-o", &options]);
    }

    /// Returns the URL of the database `errand`.
    pub fn url(&self) -> String {
        self.url_of("errand")
    }

    /// Returns the URL of a database.
    pub fn url_of(&self, database: &str) -> String {
        self.url_as(USER, database)
    }

    /// Returns the URL of a database, for a user.
    pub fn url_as(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.port())
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port.address().port()
    }

    /// Runs SQL that the program itself never runs.
    pub async fn execute(&self, sql: &str) {
        let mut connection = PgConnection::connect(&self.url()).await.unwrap();
        connection.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
        connection.close().await.unwrap();
    }

    /// Returns whether no session has this application name.
    pub async fn has_no_sessions_of(&self, application: &str) -> bool {
        let mut connection = PgConnection::connect(&self.url()).await.unwrap();
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1");
        let count = count.bind(application).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        count == 0
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn control(&self, arguments: &[&str]) {
        let data = self.data();
        let arguments = arguments.iter().map(OsStr::new).chain([OsStr::new("-s"), OsStr::new("-D"), data.as_os_str()]);
        self.run("pg_ctl", arguments);
    }

    fn run<'a>(&self, program: &str, arguments: impl Iterator<Item = &'a OsStr>) {
        let mut command = as_server(&self.programs.join(program), self.folder.path());
        // A server inherits what its starter has open, so its output must not be a pipe.
        let output = self.folder.path().join("output");
        let file = std::fs::File::create(&output).unwrap();
        command.args(arguments).stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let status = command.status().unwrap();
        let log = || std::fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default();
        assert!(status.success(), "{program}: {}{}", std::fs::read_to_string(&output).unwrap(), log());
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        let mut stop = as_server(&self.programs.join("pg_ctl"), self.folder.path());
        // A server that was stopped already is no error.
        let _: std::io::Result<Output> =
            stop.args(["stop", "-s", "-w", "-m", "immediate", "-D"]).arg(self.data()).output();
    }
}

/// Returns a command that runs as the user of the servers: PostgreSQL and PgBouncer refuse to run
/// as root.
pub fn as_server(program: &Path, folder: &Path) -> Command {
    let mut command = match server_user() {
        None => Command::new(program),
        Some(user) => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", user, "--regid", user, "--clear-groups", "--"]).arg(program);
            command
        }
    };
    command.current_dir(folder);
    command
}

/// Returns the unprivileged user that servers run as, if this process is privileged.
fn server_user() -> Option<&'static str> {
    let own = std::fs::metadata("/proc/self").ok()?;
    (std::os::unix::fs::MetadataExt::uid(&own) == 0).then_some("postgres")
}

/// Returns the folder with the programs of the newest PostgreSQL, or of the one that `./dev` names.
fn find_programs() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("ERRAND_TEST_POSTGRES_BIN") {
        return Some(named.into());
    }
    let folders = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |folder: &Path| folder.file_name()?.to_str()?.parse::<u32>().ok().filter(|version| *version >= 15);
    let newest = folders.map(|entry| entry.path()).filter_map(|path| Some((version(&path)?, path.join("bin")))).max();
    let installed = newest.map(|(_, path)| path).filter(|path| path.join("initdb").is_file());
    installed.or_else(|| Some(find_program("initdb")?.canonicalize().ok()?.parent()?.to_path_buf()))
}
