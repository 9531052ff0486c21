//! Static documents: caching.

use reqwest::Method;

use crate::server::Server;

on_both_stores!(static_documents_are_sent_once_to_clients_that_cache);

async fn static_documents_are_sent_once_to_clients_that_cache(server: Server) {
    let mut tags = std::collections::BTreeSet::new();
    for path in ["/openapi.yaml", "/openapi.json", "/docs", "/docs/docs.js", "/docs/docs.css"] {
        let first = server.request(Method::GET, path).send().await.unwrap();
        assert_eq!(
            (first.status().as_u16(), first.headers()["cache-control"].to_str().unwrap()),
            (200, "public, max-age=300")
        );
        let tag = first.headers()["etag"].to_str().unwrap().to_owned();
        assert!(first.headers().contains_key("content-type"), "{path}");
        assert!(!first.bytes().await.unwrap().is_empty(), "{path}");
        for (sent, status) in [(tag.as_str(), 304), ("\"other\"", 200)] {
            let again = server.request(Method::GET, path).header("if-none-match", sent).send().await.unwrap();
            assert_eq!(
                (again.status().as_u16(), again.headers()["etag"].to_str().unwrap()),
                (status, tag.as_str()),
                "{path}"
            );
            assert_eq!(again.bytes().await.unwrap().is_empty(), status == 304, "{path}");
        }
        assert!(tags.insert(tag), "{path} has a tag of its own");
    }
    server.stop().await;
}
