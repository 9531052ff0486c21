//! `errand resources`: tool catalogues of MCP servers.

use errand::{
    app::{Actor, Catalogue, ImportMode},
    domain::registry::tool::{Acceptance, ObservedDefinition, ToolDiff, ToolState},
};
use serde_json::Value;
use similar::{Algorithm, ChangeTag, capture_diff_slices, group_diff_ops};

use super::{ACTOR, CliError, ConfigArgs, print_line, runtime::with_application};

pub(super) fn import(name: &str, mode: ImportMode, config_args: &ConfigArgs) -> Result<(), CliError> {
    with_application(config_args, |application| async move {
        let catalogue = application.service.import_catalogue(ACTOR, name, mode, &application.system_context()?).await?;
        application.service.shutdown().await;
        print_catalogue(&catalogue, mode)
    })
}

pub(super) fn accept(name: &str, tools: &[String], config_args: &ConfigArgs) -> Result<(), CliError> {
    let acceptance = |text: &String| {
        let (name, digest) = text
            .split_once('=')
            .ok_or(CliError::new("expected TOOL=DIGEST; `errand resources diff` shows the digests"))?;
        Ok(Acceptance { name: name.parse()?, digest: digest.parse()?, tool: None })
    };
    let acceptances = tools.iter().map(acceptance).collect::<Result<Vec<_>, CliError>>()?;
    with_application(config_args, |application| async move {
        let catalogue = application
            .service
            .accept_tools(Actor::Host(ACTOR), name, &acceptances, &application.system_context()?)
            .await?;
        application.service.shutdown().await;
        for Acceptance { name, .. } in &acceptances {
            let is_offered = catalogue.resource.tools.iter().any(|tool| tool.name == *name);
            print_line(format!("{name}: accepted{}", if is_offered { "" } else { "; not in the catalogue yet" }))?;
        }
        Ok(())
    })
}

fn print_catalogue(catalogue: &Catalogue, mode: ImportMode) -> Result<(), CliError> {
    print_line(format!("{} at {}", catalogue.resource.id, catalogue.resource.uri))?;
    for finding in &catalogue.tools {
        let transition = if finding.previous_state == finding.state {
            finding.state.to_string()
        } else {
            format!("{} -> {}", finding.previous_state, finding.state)
        };
        let observed = finding.record.as_ref().and_then(|record| record.observed.as_ref());
        print_line(format!(
            "{:24} {transition:24} {}",
            finding.tool.as_str(),
            observed.map_or("", |observed| observed.digest.as_str())
        ))?;
        // An import accepts a definition that was never checked as it is, so show that one too.
        if finding.previous_state == ToolState::Unchecked
            || matches!(finding.state, ToolState::Changed | ToolState::Proposed)
        {
            print_definitions(finding)?;
        }
    }
    for unusable in catalogue.unusable.iter().flatten() {
        print_line(format!("not usable: {unusable}"))?;
    }
    let needs_review = catalogue.tools.iter().any(|f| matches!(f.state, ToolState::Changed | ToolState::Proposed));
    match mode {
        ImportMode::DryRun => print_line("no changes stored; run `errand resources import` to store them"),
        ImportMode::Apply if needs_review => {
            print_line("accept reviewed definitions with `errand resources accept URL TOOL=DIGEST`")
        }
        ImportMode::Apply => print_line("catalogue stored"),
    }
}

/// Prints the difference between the accepted and the observed definition, line by line. The text
/// comes from another party, so characters that control a terminal are escaped.
fn print_definitions(finding: &ToolDiff) -> Result<(), CliError> {
    let Some(record) = &finding.record else { return Ok(()) };
    let accepted = record.accepted.as_ref().filter(|_| finding.previous_state != ToolState::Unchecked);
    diff_lines(&definition_lines(accepted), &definition_lines(record.observed.as_ref()))
        .into_iter()
        .try_for_each(print_line)
}

/// Returns removed and added lines in place, with three lines of context.
fn diff_lines(before: &[String], after: &[String]) -> Vec<String> {
    let all = group_diff_ops(capture_diff_slices(Algorithm::Patience, before, after), 3);
    let changes = all.iter().flatten().flat_map(|op| op.iter_changes(before, after));
    let lines = changes.map(|change| {
        let sign = match change.tag() {
            ChangeTag::Delete => '-',
            ChangeTag::Insert => '+',
            ChangeTag::Equal => ' ',
        };
        format!("  {sign} {}", change.value())
    });
    lines.collect()
}

fn definition_lines(definition: Option<&ObservedDefinition>) -> Vec<String> {
    let parsed = definition.and_then(|observed| serde_json::from_str::<Value>(&observed.definition).ok());
    let text = parsed.and_then(|value| serde_json::to_string_pretty(&value).ok()).unwrap_or_default();
    text.lines().map(escape_unprintable).collect()
}

/// Escapes every character except letters, digits, ASCII symbols and blanks. This includes control
/// characters and those that change the direction of text.
fn escape_unprintable(text: &str) -> String {
    let escape = |c: char| {
        if c.is_alphanumeric() || c.is_ascii_graphic() || c == ' ' {
            c.to_string()
        } else {
            c.escape_unicode().to_string()
        }
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moved_lines_are_shown() {
        let text = |lines: &[&str]| lines.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (before, after) = (text(&["from: read", "to: overwrite"]), text(&["from: overwrite", "to: read"]));
        let shown = diff_lines(&before, &after);
        assert_eq!(shown, ["  - from: read", "  - to: overwrite", "  + from: overwrite", "  + to: read"]);
        let (before, after) = (text(&["a", "b", "c"]), text(&["b", "a", "c"]));
        assert!(diff_lines(&before, &after).iter().any(|line| line.starts_with("  -")));
        assert_eq!(diff_lines(&[], &text(&["all", "of it"])), ["  + all", "  + of it"]);
        assert!(diff_lines(&after, &after).is_empty());
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escape_unprintable("Größe 7: {\"a\"}"), "Größe 7: {\"a\"}");
        assert_eq!(
            escape_unprintable("\u{1b}[2Jgone\u{202e}txt\u{200b}\u{7}"),
            "\\u{1b}[2Jgone\\u{202e}txt\\u{200b}\\u{7}"
        );
    }
}
