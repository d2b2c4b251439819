//! The command line's flags, made from the table of variables.

use std::collections::BTreeMap;

use clap::{Arg, ArgMatches, Command};

use super::table::{Effect, VARIABLES, Variable};

/// Adds one flag per variable that has an effect, unless the command has one of that name.
pub fn add_flags(command: Command) -> Command {
    let mut command = command;
    for variable in VARIABLES {
        let Some(flag) = flag_of(variable) else { continue };
        if command.get_arguments().any(|arg| arg.get_long() == Some(&flag)) {
            continue;
        }
        let default = match variable.default {
            "" => String::new(),
            default => format!(" or {default}"),
        };
        let help = format!("{} [default: ${}{default}]", variable.about, variable.name);
        let arg = Arg::new(variable.name).long(flag).value_name("VALUE").help(help);
        command = command.arg(arg.help_heading("Settings"));
    }
    command
}

/// The flags that were given, by the name of their variable.
pub fn read_flags(matches: &ArgMatches) -> BTreeMap<&'static str, String> {
    let mut flags = BTreeMap::new();
    for variable in VARIABLES.iter().filter(|variable| flag_of(variable).is_some()) {
        if let Ok(Some(value)) = matches.try_get_one::<String>(variable.name) {
            flags.insert(variable.name, value.clone());
        }
    }
    flags
}

fn flag_of(variable: &Variable) -> Option<String> {
    match variable.effect {
        Effect::Used => variable.flag(),
        Effect::Accepted => None,
    }
}
