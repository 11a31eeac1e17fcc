//! Every example is run, not only compiled.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::process::Command;

fn output_of(program: &str) -> String {
    let output = Command::new(program).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn embed_sqlite_registers_signs_in_and_resets() {
    let said = output_of(env!("CARGO_BIN_EXE_embed_sqlite"));
    assert!(said.contains("signed in as ana@example.org"), "{said}");
    assert!(said.contains("the password was reset"), "{said}");
}

#[test]
fn custom_mailer_sends_each_domain_its_own_way() {
    let said = output_of(env!("CARGO_BIN_EXE_custom_mailer"));
    assert!(said.contains("inside: ") && said.contains("to ana@example.org"), "{said}");
    assert!(said.contains("outside: ") && said.contains("to bob@example.com"), "{said}");
}
