//! What is made from the commands themselves: completions of shells, and man pages.

use std::path::PathBuf;

use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;

use super::Arguments;
use super::failure::Failure;
use super::output::print_all;

/// Prints what a shell reads to complete commands.
pub(super) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "usermgr-server", &mut script);
    print_all(&script)
}

/// Prints the page of the program, or writes that of each command into a folder.
pub(super) fn man(folder: Option<PathBuf>) -> Result<(), Failure> {
    let command = Arguments::command().disable_help_subcommand(true);
    let Some(folder) = folder else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page)?;
        return print_all(&page);
    };
    let written = std::fs::create_dir_all(&folder).and_then(|()| clap_mangen::generate_to(command, &folder));
    written.map_err(|source| Failure::File { path: folder.display().to_string(), source })
}
