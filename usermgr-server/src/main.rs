//! The `usermgr-server` program.

fn main() -> std::process::ExitCode {
    usermgr_server::cli::main()
}
