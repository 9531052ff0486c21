//! `errand token`: an OAuth client for the terminal.

use std::{fs, io::Read, path::Path, time::Duration};

use errand::{
    adapters::{
        client_assertion,
        system::{OsEntropy, SystemClock},
    },
    domain::{jose::jws::UnverifiedJws, secret::Secret},
    ports::{Clock, Entropy},
};
use serde_json::Value;

use super::{CliError, ClientArgs, ExchangeArgs, print_line, runtime::block_on};

/// RFC 8693 §2.1
const TOKEN_EXCHANGE_GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// RFC 8693 §3
const TOKEN_TYPE_PREFIX: &str = "urn:ietf:params:oauth:token-type:";
/// RFC 7523 §2.2
const JWT_BEARER_ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Timeout of a request; the same as the default of the server.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Larger than any response of Errand.
const MAX_BODY_BYTES: usize = 1024 * 1024;

type FormFields = Vec<(&'static str, String)>;

pub(super) fn exchange(args: &ExchangeArgs) -> Result<(), CliError> {
    let subject = read_secret(&args.subject_token_file)?;
    let mut form: FormFields = vec![
        ("grant_type", TOKEN_EXCHANGE_GRANT_TYPE.to_owned()),
        ("subject_token", subject.expose().to_owned()),
        ("subject_token_type", format!("{TOKEN_TYPE_PREFIX}{}", args.subject_token_type)),
    ];
    let optional = [
        ("resource", args.resource.clone()),
        ("audience", args.audience.clone()),
        ("scope", args.scope.clone()),
        ("authorization_details", args.authorization_details.clone()),
        ("purpose", args.purpose.clone()),
        ("task_deadline", args.task_deadline.map(|seconds| seconds.to_string())),
        ("request_details", args.request_details.clone()),
        ("request_context", args.request_context.clone()),
        ("task_id", args.task.clone()),
        ("requested_actor", args.to.clone()),
        ("expires_in", args.expires_in.map(|seconds| seconds.to_string())),
    ];
    form.extend(optional.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))));
    if args.txn {
        form.push(("requested_token_type", format!("{TOKEN_TYPE_PREFIX}txn_token")));
    }
    let response = post(&args.client_args, "/oauth2/token", form)?;
    let token = response
        .get("access_token")
        .and_then(Value::as_str)
        .ok_or(CliError::new("the response contains no access token"))?;
    if args.bare {
        return print_line(token);
    }
    print_claims(token)?;
    print_line(format!("\n{token}"))
}

pub(super) fn introspect(client_args: &ClientArgs, token_file: &Path) -> Result<(), CliError> {
    let token = read_secret(token_file)?;
    let response = post(client_args, "/oauth2/introspect", vec![("token", token.expose().to_owned())])?;
    print_line(serde_json::to_string_pretty(&response)?)
}

pub(super) fn revoke(client_args: &ClientArgs, token_file: &Path) -> Result<(), CliError> {
    let token = read_secret(token_file)?;
    post(client_args, "/oauth2/revoke", vec![("token", token.expose().to_owned())])?;
    print_line("revoked, with all tokens derived from it")
}

/// Posts a form, authenticated as this client, and returns the JSON response. An OAuth error
/// becomes the text of the error.
fn post(client_args: &ClientArgs, path: &str, mut form: FormFields) -> Result<Value, CliError> {
    // A process has one default provider; a second call finds it installed.
    let _: Result<(), _> = rustls::crypto::ring::default_provider().install_default();
    // The `aud` of an assertion must equal the issuer exactly, which does not end with a slash.
    let issuer = client_args.server.trim_end_matches('/');
    let client =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(REQUEST_TIMEOUT).build()?;
    let mut request = client.post(format!("{issuer}{path}"));
    match (&client_args.secret_file, &client_args.key_file) {
        (Some(file), _) => {
            let secret = read_secret(file)?;
            request = request.basic_auth(form_encode(&client_args.client), Some(form_encode(secret.expose())));
        }
        (None, Some(file)) => {
            let (now, id) = (SystemClock::new().now(), OsEntropy::new()?.new_uuid());
            let assertion = client_assertion::sign(&read_secret(file)?, &client_args.client, issuer, now, id)?;
            form.push(("client_assertion_type", JWT_BEARER_ASSERTION_TYPE.to_owned()));
            form.push(("client_assertion", assertion.expose().to_owned()));
        }
        (None, None) => return Err(CliError::new("`--secret-file` or `--key-file` is required")),
    }
    let mut body = Value::Null;
    block_on(async {
        let response = request.form(&form).send().await?;
        let status = response.status();
        body = serde_json::from_slice(&read_body(response).await?).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(());
        }
        let text = |name| body.get(name).and_then(Value::as_str).unwrap_or("no reason given");
        Err(CliError::new(format!("{status}: {}: {}", text("error"), text("error_description"))))
    })?;
    Ok(body)
}

/// Reads the body, up to the limit.
async fn read_body(mut response: reqwest::Response) -> Result<Vec<u8>, CliError> {
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await? {
        body.extend_from_slice(&part);
        if body.len() > MAX_BODY_BYTES {
            return Err(CliError::new("the response exceeds 1 MiB; check `--server`"));
        }
    }
    Ok(body)
}

/// Encodes a part of HTTP Basic credentials (RFC 6749 §2.3.1: form encoding).
fn form_encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Prints the claims of a token that the server has just issued, without verifying it.
fn print_claims(token: &str) -> Result<(), CliError> {
    let claims = UnverifiedJws::parse(token)?.into_payload();
    print_line(serde_json::to_string_pretty(&claims)?)
}

/// Reads a secret or a token from a file or standard input, without surrounding white space.
fn read_secret(file: &Path) -> Result<Secret, CliError> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().lock().read_to_string(&mut text)?;
    } else {
        text = fs::read_to_string(file).map_err(|e| CliError::new(format!("{}: {e}", file.display())))?;
    }
    Ok(Secret::new(text.trim().to_owned()))
}
