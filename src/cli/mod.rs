//! The command line. Each command is a few lines around a use-case; what goes wrong is said in one line, with exit code 1.

mod check_config;
mod dev;
mod operator;
mod output;
mod resources;
mod serve;
mod token;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use errand::app::ImportMode;

pub(crate) use output::{CliError, print_line};

/// An OAuth token-exchange server for AI agents.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the server.
    Serve(ServeArgs),
    /// Parses a configuration file, validates it, explains it.
    CheckConfig {
        /// The file.
        file: PathBuf,
    },
    /// Brings the database to the schema of this version.
    Migrate(ConfigArgs),
    /// The server's signing keys.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// For whoever can read the server's own keys.
    #[command(subcommand)]
    Admin(AdminCommand),
    /// The audit trail.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// The delegated pieces of work.
    #[command(subcommand)]
    Task(TaskCommand),
    /// The MCP servers, and what they say of their tools.
    #[command(subcommand)]
    Resources(ResourcesCommand),
    /// A client at the terminal: what curl does, readable.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Things for `errand serve --dev`.
    #[command(subcommand)]
    Dev(DevCommand),
}

/// Which server it is about.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct ConfigArgs {
    /// The configuration file of the server.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// No file: SQLite in ./errand-dev.db, demo objects, loopback only. For development.
    #[arg(long)]
    dev: bool,
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    config_args: ConfigArgs,
    /// With --dev: another loopback address.
    #[arg(long, conflicts_with = "config", value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Shows the keys and where they are in their lives.
    List(ConfigArgs),
    /// Makes the next key of each algorithm in use; it signs once it has been published for long enough.
    Rotate(ConfigArgs),
    /// Removes a key that leaked: what it signed is inactive at once, and another one signs.
    Revoke {
        /// The key's name, as `errand keys list` shows it. It may begin with a hyphen.
        #[arg(value_name = "KID", allow_hyphen_values = true)]
        kid: String,
        /// Why, for the record.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        config_args: ConfigArgs,
    },
}

#[derive(Debug, Subcommand)]
enum AdminCommand {
    /// Makes a short-lived admin token, signed with the server's own key: to begin with.
    Token(ConfigArgs),
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Reads every chain and says what somebody did to it; exit code 1 if anything.
    Verify(ConfigArgs),
    /// Writes every record as a line of JSON.
    Export(ConfigArgs),
}

#[derive(Debug, Subcommand)]
enum TaskCommand {
    /// Tells what happened in a task, oldest first: intent, exchanges, calls, end.
    Trail {
        /// The task's id, the `txn` of its tokens.
        #[arg(value_name = "ID")]
        id: String,
        /// Of a long trail: the part before the one that named this.
        #[arg(long, value_name = "PLACE")]
        after: Option<String>,
        #[command(flatten)]
        config_args: ConfigArgs,
    },
}

#[derive(Debug, Subcommand)]
enum ResourcesCommand {
    /// Asks an MCP server for its tools and keeps what it says; what changed is not good until it is accepted.
    Import(ResourceArgs),
    /// Asks an MCP server for its tools and shows what is different from what is known.
    Diff(ResourceArgs),
    /// Accepts definitions that were looked at.
    Accept {
        /// The resource: its URI, or its id.
        #[arg(value_name = "URL")]
        name: String,
        /// Tools with the digest of what was looked at, as `diff` shows it.
        #[arg(value_name = "TOOL=DIGEST", required = true)]
        tools: Vec<String>,
        #[command(flatten)]
        config_args: ConfigArgs,
    },
}

/// Which MCP server is asked.
#[derive(Debug, Args)]
struct ResourceArgs {
    /// The resource: its URI, or its id.
    #[arg(value_name = "URL")]
    name: String,
    #[command(flatten)]
    config_args: ConfigArgs,
}

/// How the client proves who it is.
#[derive(Debug, Args)]
struct ClientArgs {
    /// The server's issuer URL.
    #[arg(long, env = "ERRAND_SERVER", value_name = "URL")]
    server: String,
    /// The client id.
    #[arg(long, env = "ERRAND_CLIENT_ID", value_name = "ID")]
    client: String,
    /// A file with the client's secret.
    #[arg(long, value_name = "FILE", required_unless_present = "key_file", conflicts_with = "key_file")]
    secret_file: Option<PathBuf>,
    /// A file with the client's private key, a JWK.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Exchanges a token (RFC 8693) and shows what came of it.
    Exchange(Box<ExchangeArgs>),
    /// Asks the server about a token (RFC 7662), as a resource.
    Introspect {
        #[command(flatten)]
        client_args: ClientArgs,
        /// A file with the token; `-` is standard input.
        #[arg(long, value_name = "FILE", default_value = "-")]
        token_file: PathBuf,
    },
    /// Takes a token back (RFC 7009), with all that was derived from it.
    Revoke {
        #[command(flatten)]
        client_args: ClientArgs,
        /// A file with the token; `-` is standard input.
        #[arg(long, value_name = "FILE", default_value = "-")]
        token_file: PathBuf,
    },
}

#[derive(Debug, Args)]
struct ExchangeArgs {
    #[command(flatten)]
    client_args: ClientArgs,
    /// A file with the subject token; `-` is standard input. Tokens don't stand in arguments: others can see those.
    #[arg(long, value_name = "FILE", default_value = "-")]
    subject_token_file: PathBuf,
    /// What the subject token is: `access_token`, `id_token`, `jwt` or `txn_token`.
    #[arg(long, value_name = "TYPE", default_value = "access_token")]
    subject_token_type: String,
    /// The resource that the token is for.
    #[arg(long, value_name = "URI")]
    resource: Option<String>,
    /// The registered name of the resource, in place of its URI; with --txn, the trust domain.
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
    /// Asks for a transaction token.
    #[arg(long, requires = "audience", conflicts_with = "resource")]
    txn: bool,
    /// The scopes.
    #[arg(long, value_name = "SCOPES")]
    scope: Option<String>,
    /// The permissions, as RFC 9396 has them.
    #[arg(long, value_name = "JSON")]
    authorization_details: Option<String>,
    /// What the work is for; needed to open a task.
    #[arg(long, value_name = "TEXT")]
    purpose: Option<String>,
    /// When the task that is opened ends by itself, in seconds from now.
    #[arg(long, value_name = "SECONDS")]
    task_deadline: Option<u32>,
    /// What the transaction is about, for a transaction token.
    #[arg(long, value_name = "JSON")]
    request_details: Option<String>,
    /// Where the request came from, for a transaction token.
    #[arg(long, value_name = "JSON")]
    request_context: Option<String>,
    /// Joins this task.
    #[arg(long, value_name = "ID")]
    task: Option<String>,
    /// The agent that the token is to be handed to.
    #[arg(long, value_name = "ID")]
    to: Option<String>,
    /// How long it should live at most, in seconds.
    #[arg(long, value_name = "SECONDS")]
    expires_in: Option<u32>,
    /// Prints the token and nothing else.
    #[arg(long)]
    bare: bool,
}

#[derive(Debug, Subcommand)]
enum DevCommand {
    /// Makes a user token of the demo identity provider, which `errand serve --dev` trusts.
    UserToken {
        /// Who it is for.
        #[arg(long, default_value = "alice")]
        sub: String,
        /// What they allow.
        #[arg(long, default_value = "files:read files:write")]
        scope: String,
        /// The agent that they signed in at.
        #[arg(long, default_value = "planner")]
        client: String,
    },
}

/// Runs a command and says how it ended.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let result = match arguments.command {
        Command::Serve(ServeArgs { config_args: with, listen }) => serve::run(with.config.as_deref(), listen),
        Command::CheckConfig { file } => check_config::check(&file),
        Command::Migrate(with) => operator::migrate(&with),
        Command::Keys(KeysCommand::List(with)) => operator::list_keys(&with),
        Command::Keys(KeysCommand::Rotate(with)) => operator::rotate_keys(&with),
        Command::Keys(KeysCommand::Revoke { kid, reason, config_args: with }) => {
            operator::revoke_key(&kid, &reason, &with)
        }
        Command::Admin(AdminCommand::Token(with)) => operator::issue_admin_token(&with),
        Command::Audit(AuditCommand::Verify(with)) => operator::verify_audit(&with),
        Command::Audit(AuditCommand::Export(with)) => operator::export_audit(&with),
        Command::Task(TaskCommand::Trail { id, after, config_args: with }) => {
            operator::print_task_trail(&id, after, &with)
        }
        Command::Resources(ResourcesCommand::Import(asked)) => {
            resources::import(&asked.name, ImportMode::Apply, &asked.config_args)
        }
        Command::Resources(ResourcesCommand::Diff(asked)) => {
            resources::import(&asked.name, ImportMode::DryRun, &asked.config_args)
        }
        Command::Resources(ResourcesCommand::Accept { name, tools, config_args: with }) => {
            resources::accept(&name, &tools, &with)
        }
        Command::Token(TokenCommand::Exchange(ask)) => token::exchange(&ask),
        Command::Token(TokenCommand::Introspect { client_args: who, token_file }) => {
            token::introspect(&who, &token_file)
        }
        Command::Token(TokenCommand::Revoke { client_args: who, token_file }) => token::revoke(&who, &token_file),
        Command::Dev(DevCommand::UserToken { sub, scope, client }) => dev::user_token(&sub, &scope, &client),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read what we write has seen enough, such as `head`.
        Err(fault) if fault.is_broken_pipe() => ExitCode::SUCCESS,
        Err(fault) => {
            output::print_error(&fault);
            ExitCode::FAILURE
        }
    }
}
