//! The handler that does nothing: reads the form and answers a constant, behind the same HTTP server. What is left to
//! gain above it is nothing.

use std::{env, net::SocketAddr, path::Path};

use axum::{Router, body::Bytes, http::header, routing::post};
use errand::http::{self, Form, Listener};

use crate::process::{Server, free_address};

/// The word that makes this program the empty server.
pub const COMMAND: &str = "serve-empty";

/// Starts it in a process of its own. Each route answers this many bytes.
pub async fn start(log: &Path, exchange: usize, introspect: usize) -> Server {
    let address = free_address();
    let arguments = [COMMAND, &address.to_string(), &exchange.to_string(), &introspect.to_string()].map(str::to_owned);
    Server::start(&env::current_exe().unwrap(), &arguments.each_ref().map(String::as_str), address, log).await
}

/// Serves until it is killed. The words are an address and the two lengths.
pub fn serve(words: &[String]) {
    let [address, lengths @ ..] = words else { panic!("no address") };
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
