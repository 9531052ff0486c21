//! Tests of the relations on authorities: tables, an exhaustive small universe, and properties of
//! generated cases.

mod relations;
mod uses;
mod wire;

use std::collections::BTreeMap;

use super::{Arg, Authority, Constraints, ListAction, Permission, Rule, parse_details};
use crate::{digest::ToolDigest, uri::ResourceUri};

const FILES: &str = "https://files.example.com/mcp";

fn files() -> ResourceUri {
    FILES.parse().unwrap()
}

fn parse_one(text: &str) -> Result<Authority, String> {
    parse_details(text, Some(&files())).map_err(|e| e.to_string())
}

/// Parses a rule.
fn rule(text: &str) -> Rule {
    constraints(&format!(r#""constraints":{{"x":{text}}}"#)).arguments["x"].clone()
}

/// Parses the constraints of a detail with these members.
fn constraints(members: &str) -> Constraints {
    let comma = if members.is_empty() { "" } else { "," };
    let detail = format!(r#"[{{"type":"mcp_tool","actions":["tools/call"],"identifier":"t"{comma}{members}}}]"#);
    parse_one(&detail).unwrap().0[0].constraints.clone()
}

fn arg(text: &str) -> Arg {
    Arg::parse(text, 8).unwrap()
}

fn arguments(text: &str) -> BTreeMap<String, Arg> {
    match arg(text) {
        Arg::Object(arguments) => arguments,
        other => panic!("{other:?} is not an object"),
    }
}

fn permission(tool: &str, constraints: Constraints) -> Permission {
    Permission { constraints, ..Permission::unconstrained(files(), tool.parse().unwrap()) }
}

fn digest(sign: char) -> ToolDigest {
    format!("sha-256:{}", sign.to_string().repeat(43)).parse().unwrap()
}
