//! Why an authority does not allow a call, for the answer to the server that asks.

use std::collections::BTreeMap;

use super::{Arg, Authority, call_key, escape::printable_name};
use crate::{id::ToolName, uri::ResourceUri};

/// The place of the arguments in [`CallRefusal::Arguments`] and [`Arg::inexact_number`].
const ARGUMENTS: &str = "arguments";

/// Why an authority does not allow a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallRefusal {
    /// No permission names the tool at this resource.
    NotNamed,
    /// Permissions name the tool, and none of them allows these arguments.
    Arguments {
        /// The place that violates the constraints, such as `arguments.path`. It is `arguments` if
        /// several permissions name the tool and differ in the place.
        at: String,
    },
}

impl Authority {
    /// Checks a call of this tool with these arguments: the same rule as
    /// [`allows`](Authority::allows), with the reason for a refusal.
    ///
    /// # Errors
    ///
    /// Returns the reason if the call is not allowed.
    ///
    /// # Examples
    ///
    /// ```
    /// use errand_authority::authority::{Arg, CallRefusal, parse_details};
    ///
    /// let target = "https://files.example.com/mcp".parse()?;
    /// let details = r#"[{"type": "mcp_tool", "identifier": "read_file", "actions": ["tools/call"],
    ///                    "constraints": {"path": {"prefix": "/reports/"}}}]"#;
    /// let authority = parse_details(details, Some(&target))?;
    /// let Arg::Object(arguments) = Arg::parse(r#"{"path": "/etc/x"}"#, 64)? else { panic!() };
    /// let refusal = authority.check_call(&target, &"read_file".parse()?, &arguments);
    /// assert_eq!(refusal, Err(CallRefusal::Arguments { at: "arguments.path".to_owned() }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn check_call(
        &self,
        resource: &ResourceUri,
        tool: &ToolName,
        arguments: &BTreeMap<String, Arg>,
    ) -> Result<(), CallRefusal> {
        let mut violations = Vec::new();
        for permission in self.permissions_for(resource, call_key(tool)) {
            match permission.constraints.first_violation(arguments) {
                None => return Ok(()),
                Some(name) => violations.push(name),
            }
        }
        match violations.split_first() {
            None => Err(CallRefusal::NotNamed),
            Some((first, others)) if others.iter().all(|other| other == first) => {
                Err(CallRefusal::Arguments { at: member_path(ARGUMENTS, first) })
            }
            Some(_) => Err(CallRefusal::Arguments { at: ARGUMENTS.to_owned() }),
        }
    }
}

impl Arg {
    /// Returns the place of the first number whose exact value differs from the one that RFC 8785
    /// writes for it, such as `arguments.items[2].price`; `None` if there is no such number. The
    /// digest of arguments without such a number identifies them.
    #[must_use]
    pub fn inexact_number(arguments: &BTreeMap<String, Self>) -> Option<String> {
        inexact_member(ARGUMENTS, arguments)
    }
}

fn inexact_member(at: &str, members: &BTreeMap<String, Arg>) -> Option<String> {
    members.iter().find_map(|(name, value)| inexact_value(value, &|| member_path(at, name)))
}

/// `at` is called only where the place is needed, because it allocates.
fn inexact_value(value: &Arg, at: &dyn Fn() -> String) -> Option<String> {
    match value {
        Arg::Null | Arg::Bool(_) | Arg::Text(_) => None,
        Arg::Number(number) => (!number.has_canonical_form()).then(at),
        Arg::List(items) => {
            let at = at();
            items.iter().enumerate().find_map(|(n, item)| inexact_value(item, &|| format!("{at}[{n}]")))
        }
        Arg::Object(members) => inexact_member(&at(), members),
    }
}

fn member_path(at: &str, name: &str) -> String {
    format!("{at}.{}", printable_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::parse_details;

    fn arguments(text: &str) -> BTreeMap<String, Arg> {
        match Arg::parse(text, 64).unwrap() {
            Arg::Object(members) => members,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn refusal_names_the_place() {
        let target = "https://files.example.com/mcp".parse().unwrap();
        let tool = "read_file".parse().unwrap();
        let detail =
            |rest: &str| format!(r#"{{"type":"mcp_tool","actions":["tools/call"],"identifier":"read_file"{rest}}}"#);
        let limited =
            detail(r#","constraints":{"path":{"prefix":"/reports/"},"limit":{"max":10},"note":{"any":true}}"#);
        let open = detail(r#","constraints":{"limit":{"max":10}},"additional_arguments":true"#);
        let other = detail(r#","constraints":{"mode":{"equals":"raw"}}"#);
        for (details, call, at) in [
            (vec![&limited], r#"{"path":"/reports/a","limit":10}"#, None),
            (vec![&limited], r#"{"path":"/reports/a","limit":10,"note":[1]}"#, None),
            (vec![&limited], r#"{"path":"/etc","limit":10}"#, Some("arguments.path")),
            (vec![&limited], r#"{"path":"/reports/a","limit":10.5}"#, Some("arguments.limit")),
            (vec![&limited], r#"{"limit":10}"#, Some("arguments.path")),
            (vec![&limited], "{}", Some("arguments.limit")),
            (vec![&limited], r#"{"path":"/reports/a","limit":1,"x":1}"#, Some("arguments.x")),
            (vec![&limited], r#"{"path":"/etc","limit":1,"a":1}"#, Some("arguments.a")),
            (vec![&limited], r#"{"path":"/reports/a","limit":1,"\u001b[2J":1}"#, Some("arguments.?")),
            (vec![&open], r#"{"limit":10,"anything":1e400}"#, None),
            (vec![&open], "{}", Some("arguments.limit")),
            (vec![&limited, &other], r#"{"mode":"raw"}"#, None),
            (vec![&limited, &other], r#"{"mode":"x"}"#, Some("arguments")),
            (vec![&limited, &open], r#"{"limit":11}"#, Some("arguments.limit")),
        ] {
            let text = format!("[{}]", details.into_iter().cloned().collect::<Vec<_>>().join(","));
            let authority = parse_details(&text, Some(&target)).unwrap();
            let call = arguments(call);
            let expected = at.map_or(Ok(()), |at| Err(CallRefusal::Arguments { at: at.to_owned() }));
            assert_eq!(authority.check_call(&target, &tool, &call), expected, "{text} {call:?}");
            assert_eq!(authority.allows(&target, &tool, &call), at.is_none(), "{text} {call:?}");
            let unnamed = authority.check_call(&target, &"write_file".parse().unwrap(), &call);
            assert_eq!(unnamed, Err(CallRefusal::NotNamed));
            let elsewhere = "https://notes.example.com/mcp".parse().unwrap();
            assert_eq!(authority.check_call(&elsewhere, &tool, &call), Err(CallRefusal::NotNamed));
        }
    }

    #[test]
    fn inexact_number_is_found_at_any_depth() {
        for (text, at) in [
            ("{}", None),
            (r#"{"a":1,"b":[0.1,-2.5e10,{"c":9007199254740991}],"d":"9007199254740993","e":null}"#, None),
            (r#"{"a":9223372036854775808}"#, Some("arguments.a")),
            (r#"{"a":9223372036854775807}"#, Some("arguments.a")),
            (r#"{"a":1e400}"#, Some("arguments.a")),
            (r#"{"a":1e-400}"#, Some("arguments.a")),
            (r#"{"a":9007199254740993}"#, Some("arguments.a")),
            (r#"{"a":1000.00000000000001}"#, Some("arguments.a")),
            (r#"{"a":[1,[2,{"b":{"c d":0.10000000000000000001}}]]}"#, Some("arguments.a[1][1].b.?")),
        ] {
            assert_eq!(Arg::inexact_number(&arguments(text)).as_deref(), at, "{text}");
        }
    }
}
