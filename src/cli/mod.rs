//! Command-line interface. Each command is a thin layer over a use case. A failed command prints
//! one error and exits with code 1.

mod admin;
mod audit;
mod check_config;
mod config;
mod dev;
mod forget;
mod issuers;
mod keys;
mod log;
mod migrate;
mod output;
mod reload;
mod resources;
mod runtime;
mod serve;
mod status;
mod stop;
mod task;
mod telemetry;
mod token;

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, CommandFactory, Parser, Subcommand};
use errand::{
    adapters::system::disable_core_dumps,
    app::ImportMode,
    config::{is_replica_name, program_arguments},
    ports::ErrorChain,
};

pub(crate) use output::{CliError, print_line};

/// The actor of these commands in the audit trail.
const ACTOR: &str = "admin:command-line";

/// An OAuth token-exchange server for AI agents.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve(ServeArgs),
    /// Validate and summarize a configuration file.
    CheckConfig(CheckConfigArgs),
    /// Compare the configuration file with the store, or apply the file.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Show the replicas, and the configuration file in force.
    Status(ConfigArgs),
    /// Stop every agent at once, or resume them. Shows the effect unless --yes is given.
    Stop(StopArgs),
    /// Migrate the database to the schema of this version.
    Migrate(ConfigArgs),
    /// Manage the signing keys and the key-encryption key.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Manage the keys of identity providers.
    #[command(subcommand)]
    Issuers(IssuersCommand),
    /// Bootstrap the administration.
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Verify, export or prune the audit trail.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Remove what is stored about a person. Shows the effect unless --yes is given.
    ForgetPerson(ForgetArgs),
    /// Inspect tasks.
    #[command(subcommand)]
    Task(TaskCommand),
    /// Manage the tool catalogues of MCP servers.
    #[command(subcommand)]
    Resources(ResourcesCommand),
    /// Exchange, introspect and revoke tokens as a client.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Tools for `errand serve --dev`.
    #[command(subcommand)]
    Dev(DevCommand),
}

/// A configuration file, positional or as an option.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct FileArgs {
    /// Configuration file.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct CheckConfigArgs {
    #[command(flatten)]
    file_args: FileArgs,
    /// Exit with code 1 if there are warnings.
    #[arg(long)]
    strict: bool,
}

/// Selects the server, by a positional argument or by an option.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct ConfigArgs {
    /// Configuration file of the server.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Configuration file of the server.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Development server without a file: SQLite in ./errand-dev.db, demo objects, loopback only.
    #[arg(long)]
    dev: bool,
}

impl ConfigArgs {
    /// Returns the configuration file, or `None` for the development server.
    fn path(&self) -> Option<&Path> {
        self.file.as_deref().or(self.config.as_deref())
    }
}

/// Selects the server, for commands whose positional arguments take any number of values.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct ConfigOptions {
    /// Configuration file of the server.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Development server without a file: SQLite in ./errand-dev.db, demo objects, loopback only.
    #[arg(long)]
    dev: bool,
}

impl From<ConfigOptions> for ConfigArgs {
    fn from(ConfigOptions { config, dev }: ConfigOptions) -> Self {
        Self { file: None, config, dev }
    }
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    config_args: ConfigArgs,
    /// Number of live tasks that applying the file may end.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "dev")]
    accept_ending: u64,
    /// Serve by the registry in the store, and do not apply the file's objects and secrets.
    #[arg(long, conflicts_with = "dev")]
    no_apply: bool,
    /// Address of the public listener; overrides `listen`. With --dev, a loopback address.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Address of the listener for health and metrics; overrides `operations_listen`.
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "dev")]
    operations_listen: Option<SocketAddr>,
    /// Name of this replica; overrides `name` in `[replicas]`.
    #[arg(long, value_name = "NAME", value_parser = parse_replica_name, conflicts_with = "dev")]
    replica_name: Option<String>,
}

fn parse_replica_name(text: &str) -> Result<String, &'static str> {
    is_replica_name(text).then(|| text.to_owned()).ok_or("must be 1 to 100 characters without control characters")
}

#[derive(Debug, Args)]
struct StopArgs {
    #[command(flatten)]
    config_args: ConfigArgs,
    /// Every agent. Single agents are suspended over REST.
    #[arg(long, required = true)]
    all: bool,
    /// Resume the agents that this command has suspended.
    #[arg(long)]
    resume: bool,
    /// Reason, for the audit trail.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Do it, instead of showing the effect.
    #[arg(long, requires = "reason")]
    yes: bool,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Show what applying the file would change, and which live tasks would end.
    Diff(ConfigArgs),
    /// Apply the file's objects and secrets to the store, for all replicas.
    Reload(ReloadArgs),
}

#[derive(Debug, Args)]
struct ReloadArgs {
    #[command(flatten)]
    config_args: ConfigArgs,
    /// Apply a file that is older than the file in force.
    #[arg(long)]
    return_to_older: bool,
    /// Number of live tasks that applying the file may end.
    #[arg(long, value_name = "N", default_value_t = 0)]
    accept_ending: u64,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// List the keys with their states and dates.
    List(ConfigArgs),
    /// Create the next key of each algorithm in use; it signs after it was published long enough.
    Rotate {
        /// Sign with the new key at once, although verifiers had no time to fetch it. Repairs a key
        /// that was created while the clock was ahead.
        #[arg(long)]
        now: bool,
        #[command(flatten)]
        config_args: ConfigArgs,
    },
    /// Encrypt the stored keys with the current key-encryption key, after all replicas have it.
    Rekey(ConfigArgs),
    /// Remove a leaked key: its tokens become inactive at once, and another key signs.
    Revoke {
        /// Key id, as `errand keys list` shows it. It may begin with a hyphen.
        #[arg(value_name = "KID", allow_hyphen_values = true)]
        kid: String,
        /// Reason, for the audit trail.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        config_args: ConfigArgs,
    },
}

#[derive(Debug, Subcommand)]
enum IssuersCommand {
    /// Have every replica fetch the keys of an identity provider again, or stop using some of them.
    Refresh(IssuerKeysArgs),
}

#[derive(Debug, Args)]
struct IssuerKeysArgs {
    /// Issuer of the identity provider.
    #[arg(value_name = "URL")]
    issuer: String,
    /// Key (`kid`) to withdraw, even if the provider publishes it; may be repeated.
    #[arg(long, value_name = "KID", allow_hyphen_values = true, visible_alias = "drop")]
    withdraw: Vec<String>,
    /// Withdrawn key to use again; may be repeated.
    #[arg(long, value_name = "KID", allow_hyphen_values = true)]
    restore: Vec<String>,
    /// Reason, for the audit trail.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    config_args: ConfigArgs,
}

#[derive(Debug, Subcommand)]
enum AdminCommand {
    /// Issue a short-lived admin token, signed with the server's own key.
    Token(ConfigArgs),
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Verify the audit trail of a server, or an export; exit code 1 if tampering is detected.
    Verify(AuditVerifyArgs),
    /// Write the checkpoints and every record as lines of JSON, and a new checkpoint at the end.
    Export(ConfigArgs),
    /// Delete old records that an export contains; needs the rights of the role that migrates.
    Prune(AuditPruneArgs),
    /// Sign a checkpoint, and print it.
    Checkpoint(ConfigArgs),
    /// Print the public keys of checkpoints, as a JWK set.
    Keys(ConfigArgs),
}

/// Selects a person.
#[derive(Debug, Args)]
struct ForgetArgs {
    #[command(flatten)]
    config_args: ConfigArgs,
    /// Issuer of the person's identity provider.
    #[arg(long, value_name = "URL")]
    issuer: String,
    /// Subject of the person, with the prefix that the issuer is registered with.
    #[arg(long, value_name = "TEXT")]
    subject: String,
    /// Do it, instead of showing the effect.
    #[arg(long)]
    yes: bool,
}

/// Selects the records to delete.
#[derive(Debug, Args)]
struct AuditPruneArgs {
    #[command(flatten)]
    config_args: ConfigArgs,
    /// Delete the records before this time, such as 2026-01-31T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    before: String,
    /// Export that contains the records. Keep it with its checkpoint.
    #[arg(long, value_name = "FILE")]
    export: PathBuf,
    /// Do it, instead of showing the effect.
    #[arg(long)]
    yes: bool,
}

/// Selects what is verified, and with which keys.
#[derive(Debug, Args)]
#[group(skip)]
struct AuditVerifyArgs {
    /// Configuration file of the server whose audit trail is verified.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dev", "export", "keys"])]
    config: Option<PathBuf>,
    /// Verify the audit trail of the development server.
    #[arg(long, conflicts_with_all = ["export", "keys"])]
    dev: bool,
    /// Verify this export, without access to a server or a database.
    #[arg(long, value_name = "FILE", requires = "keys")]
    export: Option<PathBuf>,
    /// Checkpoints that were kept elsewhere, one per line; without --config or --export, only they
    /// are verified.
    #[arg(long = "checkpoint", value_name = "FILE")]
    checkpoints: Vec<PathBuf>,
    /// Public keys of checkpoints, as `errand audit keys` printed them.
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum TaskCommand {
    /// Show what happened in a task, oldest first: intent, exchanges, calls, end.
    Trail {
        /// Task id: the `txn` of its tokens.
        #[arg(value_name = "ID")]
        id: String,
        /// Cursor of an earlier part of a long trail.
        #[arg(long, value_name = "CURSOR")]
        after: Option<String>,
        #[command(flatten)]
        config_args: ConfigArgs,
    },
}

#[derive(Debug, Subcommand)]
enum ResourcesCommand {
    /// Fetch the tools of an MCP server and store them; changed tools are unavailable until
    /// accepted.
    Import(ResourceArgs),
    /// Fetch the tools of an MCP server and show the differences.
    Diff(ResourceArgs),
    /// Accept reviewed tool definitions.
    Accept {
        /// Resource: its URI or its id.
        #[arg(value_name = "URL")]
        name: String,
        /// Tools with the digests of the reviewed definitions, as `diff` shows them.
        #[arg(value_name = "TOOL=DIGEST", required = true)]
        tools: Vec<String>,
        #[command(flatten)]
        config_options: ConfigOptions,
    },
}

/// Selects an MCP server.
#[derive(Debug, Args)]
struct ResourceArgs {
    /// Resource: its URI or its id.
    #[arg(value_name = "URL")]
    name: String,
    #[command(flatten)]
    config_args: ConfigArgs,
}

/// Client authentication.
#[derive(Debug, Args)]
struct ClientArgs {
    /// Issuer URL of the server.
    #[arg(long, env = "ERRAND_SERVER", value_name = "URL")]
    server: String,
    /// Client id.
    #[arg(long, env = "ERRAND_CLIENT_ID", value_name = "ID")]
    client: String,
    /// File with the client's secret.
    #[arg(long, value_name = "FILE", required_unless_present = "key_file", conflicts_with = "key_file")]
    secret_file: Option<PathBuf>,
    /// File with the client's private key, as a JWK.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Exchange a token (RFC 8693) and show the new one.
    Exchange(Box<ExchangeArgs>),
    /// Introspect a token (RFC 7662), as a resource.
    Introspect {
        #[command(flatten)]
        client_args: ClientArgs,
        /// File with the token; `-` is standard input.
        #[arg(long, value_name = "FILE", default_value = "-")]
        token_file: PathBuf,
    },
    /// Revoke a token (RFC 7009) and all tokens derived from it.
    Revoke {
        #[command(flatten)]
        client_args: ClientArgs,
        /// File with the token; `-` is standard input.
        #[arg(long, value_name = "FILE", default_value = "-")]
        token_file: PathBuf,
    },
}

#[derive(Debug, Args)]
struct ExchangeArgs {
    #[command(flatten)]
    client_args: ClientArgs,
    /// File with the subject token; `-` is standard input. Other users can see arguments, so tokens
    /// are never passed in them.
    #[arg(long, value_name = "FILE", default_value = "-")]
    subject_token_file: PathBuf,
    /// Type of the subject token: `access_token`, `id_token`, `jwt` or `txn_token`.
    #[arg(long, value_name = "TYPE", default_value = "access_token")]
    subject_token_type: String,
    /// Resource that the token is for.
    #[arg(long, value_name = "URI")]
    resource: Option<String>,
    /// Registered name of the resource, instead of its URI; with --txn, the trust domain.
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
    /// Request a transaction token.
    #[arg(long, requires = "audience", conflicts_with = "resource")]
    txn: bool,
    /// Requested scopes.
    #[arg(long, value_name = "SCOPES")]
    scope: Option<String>,
    /// Requested permissions (RFC 9396).
    #[arg(long, value_name = "JSON")]
    authorization_details: Option<String>,
    /// Purpose of the task; required to open one.
    #[arg(long, value_name = "TEXT")]
    purpose: Option<String>,
    /// Lifetime of the opened task, in seconds.
    #[arg(long, value_name = "SECONDS")]
    task_deadline: Option<u32>,
    /// Details of the transaction, for a transaction token.
    #[arg(long, value_name = "JSON")]
    request_details: Option<String>,
    /// Context of the request, for a transaction token.
    #[arg(long, value_name = "JSON")]
    request_context: Option<String>,
    /// Id of a task to join.
    #[arg(long, value_name = "ID")]
    task: Option<String>,
    /// Agent to delegate to: requests a hand-over token.
    #[arg(long, value_name = "ID")]
    to: Option<String>,
    /// Maximum lifetime of the token, in seconds.
    #[arg(long, value_name = "SECONDS")]
    expires_in: Option<u32>,
    /// Print only the token.
    #[arg(long)]
    bare: bool,
}

#[derive(Debug, Subcommand)]
enum DevCommand {
    /// Issue a user token of the demo identity provider, which `errand serve --dev` trusts.
    UserToken {
        /// The user.
        #[arg(long, default_value = "alice")]
        sub: String,
        /// Scopes of the token.
        #[arg(long, default_value = "files:read files:write")]
        scope: String,
        /// Client that the user signed in to: the agent.
        #[arg(long, default_value = "planner")]
        client: String,
    },
}

impl Arguments {
    /// Parses the arguments of this process. `--help` after `help` asks for the same text as
    /// `help` alone.
    pub(crate) fn from_process() -> Self {
        Self::parse_from(without_help_of_help(program_arguments()))
    }
}

/// Removes `--help` and `-h` after the subcommand `help`, at any level of subcommands.
fn without_help_of_help(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let mut command = Arguments::command();
    for position in 1..arguments.len() {
        let Some(word) = arguments.get(position).and_then(|word| word.to_str()) else { break };
        if word == "help" && command.has_subcommands() {
            let mut rest = arguments.split_off(position + 1);
            rest.retain(|word| word != "--help" && word != "-h");
            arguments.append(&mut rest);
            break;
        }
        let Some(next) = command.find_subcommand(word).cloned() else { break };
        command = next;
    }
    arguments
}

/// Runs a command and returns its exit code.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    if let Err(outage) = disable_core_dumps() {
        output::eprint_line(format_args!("errand: warning: {}", ErrorChain(&outage)));
    }
    let result = match arguments.command {
        Command::Serve(serve_args) => serve::run(&serve_args),
        Command::CheckConfig(CheckConfigArgs { file_args: FileArgs { file, config }, strict }) => {
            file.or(config).map_or(Ok(()), |file| check_config::check(&file, strict))
        }
        Command::Config(ConfigCommand::Diff(config_args)) => config::diff(&config_args),
        Command::Config(ConfigCommand::Reload(reload_args)) => config::reload(&reload_args),
        Command::Status(config_args) => status::print_status(&config_args),
        Command::Stop(stop_args) => stop::stop(&stop_args),
        Command::Migrate(config_args) => migrate::migrate(&config_args),
        Command::Keys(KeysCommand::List(config_args)) => keys::list(&config_args),
        Command::Keys(KeysCommand::Rotate { now, config_args }) => keys::rotate(now, &config_args),
        Command::Keys(KeysCommand::Rekey(config_args)) => keys::rekey(&config_args),
        Command::Keys(KeysCommand::Revoke { kid, reason, config_args }) => keys::revoke(&kid, &reason, &config_args),
        Command::Issuers(IssuersCommand::Refresh(args)) => issuers::refresh(args),
        Command::Admin(AdminCommand::Token(config_args)) => admin::issue_token(&config_args),
        Command::Audit(AuditCommand::Verify(args)) => audit::verify(args),
        Command::Audit(AuditCommand::Export(config_args)) => audit::export(&config_args),
        Command::ForgetPerson(args) => forget::forget(args),
        Command::Audit(AuditCommand::Prune(args)) => audit::prune(args),
        Command::Audit(AuditCommand::Checkpoint(config_args)) => audit::sign_checkpoint(&config_args),
        Command::Audit(AuditCommand::Keys(config_args)) => audit::print_keys(&config_args),
        Command::Task(TaskCommand::Trail { id, after, config_args }) => task::print_trail(&id, after, &config_args),
        Command::Resources(ResourcesCommand::Import(args)) => {
            resources::import(&args.name, ImportMode::Apply, &args.config_args)
        }
        Command::Resources(ResourcesCommand::Diff(args)) => {
            resources::import(&args.name, ImportMode::DryRun, &args.config_args)
        }
        Command::Resources(ResourcesCommand::Accept { name, tools, config_options }) => {
            resources::accept(&name, &tools, &config_options.into())
        }
        Command::Token(TokenCommand::Exchange(args)) => token::exchange(&args),
        Command::Token(TokenCommand::Introspect { client_args, token_file }) => {
            token::introspect(&client_args, &token_file)
        }
        Command::Token(TokenCommand::Revoke { client_args, token_file }) => token::revoke(&client_args, &token_file),
        Command::Dev(DevCommand::UserToken { sub, scope, client }) => dev::user_token(&sub, &scope, &client),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // A reader such as `head` closes the pipe when it has read enough.
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            output::print_error(&error);
            ExitCode::FAILURE
        }
    }
}
