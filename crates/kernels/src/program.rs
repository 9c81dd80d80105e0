//! The pages of the program itself, and those that it takes.

use std::io;

#[cfg(target_os = "linux")]
unsafe extern "C" {
    /// Where the program begins in memory, and where its code ends: every ELF linker says so.
    static __executable_start: u8;
    static etext: u8;
}

/// Unmaps the program's code and constants. What is used is mapped again when it is, from the cache that all processes
/// of the program share; what only the start needed stays out. The system does the same when memory is short.
///
/// Measured: an idle relay has 4.7 MB resident afterwards and up to 11 MB some seconds later, instead of 17.
/// Breakpoints that a debugger has set before are lost.
#[cfg(target_os = "linux")]
pub fn release_pages() -> io::Result<()> {
    let (from, bytes) = program();
    // SAFETY: between the two lie the segments that the program's file is mapped to for reading and running alone.
    // No relocation goes there (what needs one lies behind the code, in segments that can be written at first), so
    // that their pages are those of the file, which the next access finds again.
    unsafe { rustix::mm::madvise(from, bytes, rustix::mm::Advice::LinuxDontNeed)? };
    Ok(())
}

/// Code and constants: where they begin, and how many bytes of whole pages they have.
#[cfg(target_os = "linux")]
fn program() -> (*mut std::ffi::c_void, usize) {
    let (from, to) = (&raw const __executable_start, &raw const etext);
    let page_bytes = rustix::param::page_size();
    (from.cast_mut().cast(), to.addr().saturating_sub(from.addr()) / page_bytes * page_bytes)
}

/// Keeps everything in memory that the process has and will get, but for its code and constants: no page of it goes to
/// a swap device. A page is locked when it is first used, so that nothing grows by this. Under a limit
/// (`RLIMIT_MEMLOCK`) memory beyond it would not be given any more.
#[cfg(target_os = "linux")]
pub fn lock_memory() -> io::Result<()> {
    use rustix::mm::{MlockAllFlags, mlockall, munlock};
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?;
    let (from, bytes) = program();
    // SAFETY: this changes what the system may do with pages, and not what is in them.
    unsafe { munlock(from, bytes)? };
    Ok(())
}

/// Elsewhere the program does not know how.
#[cfg(not(target_os = "linux"))]
pub fn lock_memory() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Elsewhere the system decides alone.
#[cfg(not(target_os = "linux"))]
pub fn release_pages() -> io::Result<()> {
    Ok(())
}
