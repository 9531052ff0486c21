//! An empty handler: reads the form and returns a constant, behind the same HTTP server. It is the
//! upper bound for the throughput of Errand.

use std::{env, net::SocketAddr, path::Path};

use axum::{Router, body::Bytes, http::header, routing::post};
use errand::http::{self, Form, Listener};

use crate::process::{Server, free_address};

/// Argument that starts this program as the empty server.
pub const COMMAND: &str = "serve-empty";

/// Starts the server in a separate process. Each route returns this many bytes.
pub async fn start(log: &Path, exchange: usize, introspect: usize) -> Server {
    let address = free_address();
    let arguments = [COMMAND, &address.to_string(), &exchange.to_string(), &introspect.to_string()].map(str::to_owned);
    Server::start(&env::current_exe().unwrap(), &arguments.each_ref().map(String::as_str), address, log).await
}

/// Serves until it is killed. The arguments are an address and the two lengths.
pub fn serve(words: &[String]) {
    let [address, lengths @ ..] = words else { panic!("the address is missing") };
    let address = address.parse::<SocketAddr>().unwrap();
    let [exchange, introspect] = [0, 1].map(|n: usize| lengths[n].parse::<usize>().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let router = Router::new()
            .route("/oauth2/token", post(async move |body: Bytes| respond(&body, exchange)))
            .route("/oauth2/introspect", post(async move |body: Bytes| respond(&body, introspect)));
        let listener = Listener::bind(address, None).await.unwrap();
        http::serve(listener, router, std::future::pending()).await;
    });
}

fn respond(body: &[u8], length: usize) -> ([(header::HeaderName, &'static str); 1], String) {
    assert!(Form::parse(body).is_ok());
    ([(header::CONTENT_TYPE, "application/json")], " ".repeat(length))
}
