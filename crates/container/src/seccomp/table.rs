//! Which system calls are allowed, by which capability, under which condition: the default profile of Docker for x86-64.
//!
//! Numbers stand here and not in `libc`, which knows only some of the newer ones.

/// What an argument has to be. Only the first argument, and of it the low half, is ever looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// No bit of the mask is set.
    NoneOf(u32),
    /// It is one of these.
    OneOf(&'static [u32]),
}

/// What a rule answers.
#[derive(Debug)]
pub enum Then {
    /// Allowed.
    Allow,
    /// Refused as if the kernel did not know it, so that programs use an older call.
    NoSys,
    /// Allowed under a condition.
    If(Condition),
}

/// One rule.
#[derive(Debug)]
pub struct Rule {
    /// Numbers of system calls.
    pub calls: &'static [u16],
    /// Applies with any of these capabilities; always if empty.
    pub needs: &'static [&'static str],
    /// Does not apply with any of these.
    pub lacks: &'static [&'static str],
    /// The answer.
    pub action: Then,
}

const NAMESPACES: u32 = 0x7e02_0000;

/// Address families: all that the kernel implements but AF_ALG (38) and AF_VSOCK (40), which reach kernel interfaces and machines that
/// a container has no business with, and those that were removed from it.
const FAMILIES: &[u32] = &[
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39,
    41, 42, 43, 44, 45,
];

/// All rules. Of several for one call, the one that allows most wins.
pub const RULES: &[Rule] = &[
    Rule {
        calls: &[
            nr::READ,
            nr::WRITE,
            nr::OPEN,
            nr::CLOSE,
            nr::STAT,
            nr::FSTAT,
            nr::LSTAT,
            nr::POLL,
            nr::LSEEK,
            nr::MMAP,
            nr::MPROTECT,
            nr::MUNMAP,
            nr::BRK,
            nr::RT_SIGACTION,
            nr::RT_SIGPROCMASK,
            nr::RT_SIGRETURN,
            nr::IOCTL,
            nr::PREAD64,
            nr::PWRITE64,
            nr::READV,
            nr::WRITEV,
            nr::ACCESS,
            nr::PIPE,
            nr::SELECT,
            nr::SCHED_YIELD,
            nr::MREMAP,
            nr::MSYNC,
            nr::MINCORE,
            nr::MADVISE,
            nr::SHMGET,
            nr::SHMAT,
            nr::SHMCTL,
            nr::DUP,
            nr::DUP2,
            nr::PAUSE,
            nr::NANOSLEEP,
            nr::GETITIMER,
            nr::ALARM,
            nr::SETITIMER,
            nr::GETPID,
            nr::SENDFILE,
            nr::CONNECT,
            nr::ACCEPT,
            nr::SENDTO,
            nr::RECVFROM,
            nr::SENDMSG,
            nr::RECVMSG,
            nr::SHUTDOWN,
            nr::BIND,
            nr::LISTEN,
            nr::GETSOCKNAME,
            nr::GETPEERNAME,
            nr::SOCKETPAIR,
            nr::SETSOCKOPT,
            nr::GETSOCKOPT,
            nr::FORK,
            nr::VFORK,
            nr::EXECVE,
            nr::EXIT,
            nr::WAIT4,
            nr::KILL,
            nr::UNAME,
            nr::SEMGET,
            nr::SEMOP,
            nr::SEMCTL,
            nr::SHMDT,
            nr::MSGGET,
            nr::MSGSND,
            nr::MSGRCV,
            nr::MSGCTL,
            nr::FCNTL,
            nr::FLOCK,
            nr::FSYNC,
            nr::FDATASYNC,
            nr::TRUNCATE,
            nr::FTRUNCATE,
            nr::GETDENTS,
            nr::GETCWD,
            nr::CHDIR,
            nr::FCHDIR,
            nr::RENAME,
            nr::MKDIR,
            nr::RMDIR,
            nr::CREAT,
            nr::LINK,
            nr::UNLINK,
            nr::SYMLINK,
            nr::READLINK,
            nr::CHMOD,
            nr::FCHMOD,
            nr::CHOWN,
            nr::FCHOWN,
            nr::LCHOWN,
            nr::UMASK,
            nr::GETTIMEOFDAY,
            nr::GETRLIMIT,
            nr::GETRUSAGE,
            nr::SYSINFO,
            nr::TIMES,
            nr::PTRACE,
            nr::GETUID,
            nr::GETGID,
            nr::SETUID,
            nr::SETGID,
            nr::GETEUID,
            nr::GETEGID,
            nr::SETPGID,
            nr::GETPPID,
            nr::GETPGRP,
            nr::SETSID,
            nr::SETREUID,
            nr::SETREGID,
            nr::GETGROUPS,
            nr::SETGROUPS,
            nr::SETRESUID,
            nr::GETRESUID,
            nr::SETRESGID,
            nr::GETRESGID,
            nr::GETPGID,
            nr::SETFSUID,
            nr::SETFSGID,
            nr::GETSID,
            nr::CAPGET,
            nr::CAPSET,
            nr::RT_SIGPENDING,
            nr::RT_SIGTIMEDWAIT,
            nr::RT_SIGQUEUEINFO,
            nr::RT_SIGSUSPEND,
            nr::SIGALTSTACK,
            nr::UTIME,
            nr::MKNOD,
            nr::STATFS,
            nr::FSTATFS,
            nr::GETPRIORITY,
            nr::SETPRIORITY,
            nr::SCHED_SETPARAM,
            nr::SCHED_GETPARAM,
            nr::SCHED_SETSCHEDULER,
            nr::SCHED_GETSCHEDULER,
            nr::SCHED_GET_PRIORITY_MAX,
            nr::SCHED_GET_PRIORITY_MIN,
            nr::SCHED_RR_GET_INTERVAL,
            nr::MLOCK,
            nr::MUNLOCK,
            nr::MLOCKALL,
            nr::MUNLOCKALL,
            nr::MODIFY_LDT,
            nr::PRCTL,
            nr::ARCH_PRCTL,
            nr::ADJTIMEX,
            nr::SETRLIMIT,
            nr::SYNC,
            nr::GETTID,
            nr::READAHEAD,
            nr::SETXATTR,
            nr::LSETXATTR,
            nr::FSETXATTR,
            nr::GETXATTR,
            nr::LGETXATTR,
            nr::FGETXATTR,
            nr::LISTXATTR,
            nr::LLISTXATTR,
            nr::FLISTXATTR,
            nr::REMOVEXATTR,
            nr::LREMOVEXATTR,
            nr::FREMOVEXATTR,
            nr::TKILL,
            nr::TIME,
            nr::FUTEX,
            nr::SCHED_SETAFFINITY,
            nr::SCHED_GETAFFINITY,
            nr::SET_THREAD_AREA,
            nr::IO_SETUP,
            nr::IO_DESTROY,
            nr::IO_GETEVENTS,
            nr::IO_PGETEVENTS,
            nr::IO_SUBMIT,
            nr::IO_CANCEL,
            nr::GET_THREAD_AREA,
            nr::EPOLL_CREATE,
            nr::EPOLL_CTL_OLD,
            nr::EPOLL_WAIT_OLD,
            nr::REMAP_FILE_PAGES,
            nr::GETDENTS64,
            nr::SET_TID_ADDRESS,
            nr::RESTART_SYSCALL,
            nr::SEMTIMEDOP,
            nr::FADVISE64,
            nr::TIMER_CREATE,
            nr::TIMER_SETTIME,
            nr::TIMER_GETTIME,
            nr::TIMER_GETOVERRUN,
            nr::TIMER_DELETE,
            nr::CLOCK_GETTIME,
            nr::CLOCK_GETRES,
            nr::CLOCK_NANOSLEEP,
            nr::EXIT_GROUP,
            nr::EPOLL_WAIT,
            nr::EPOLL_CTL,
            nr::TGKILL,
            nr::UTIMES,
            nr::MQ_OPEN,
            nr::MQ_UNLINK,
            nr::MQ_TIMEDSEND,
            nr::MQ_TIMEDRECEIVE,
            nr::MQ_NOTIFY,
            nr::MQ_GETSETATTR,
            nr::WAITID,
            nr::IOPRIO_SET,
            nr::IOPRIO_GET,
            nr::INOTIFY_INIT,
            nr::INOTIFY_ADD_WATCH,
            nr::INOTIFY_RM_WATCH,
            nr::OPENAT,
            nr::MKDIRAT,
            nr::MKNODAT,
            nr::FCHOWNAT,
            nr::FUTIMESAT,
            nr::NEWFSTATAT,
            nr::UNLINKAT,
            nr::RENAMEAT,
            nr::LINKAT,
            nr::SYMLINKAT,
            nr::READLINKAT,
            nr::FCHMODAT,
            nr::FACCESSAT,
            nr::PSELECT6,
            nr::PPOLL,
            nr::SET_ROBUST_LIST,
            nr::GET_ROBUST_LIST,
            nr::SPLICE,
            nr::TEE,
            nr::SYNC_FILE_RANGE,
            nr::VMSPLICE,
            nr::UTIMENSAT,
            nr::EPOLL_PWAIT,
            nr::SIGNALFD,
            nr::TIMERFD_CREATE,
            nr::EVENTFD,
            nr::FALLOCATE,
            nr::TIMERFD_SETTIME,
            nr::TIMERFD_GETTIME,
            nr::ACCEPT4,
            nr::SIGNALFD4,
            nr::EVENTFD2,
            nr::EPOLL_CREATE1,
            nr::DUP3,
            nr::PIPE2,
            nr::INOTIFY_INIT1,
            nr::PREADV,
            nr::PWRITEV,
            nr::RT_TGSIGQUEUEINFO,
            nr::RECVMMSG,
            nr::FANOTIFY_MARK,
            nr::PRLIMIT64,
            nr::NAME_TO_HANDLE_AT,
            nr::CLOCK_ADJTIME,
            nr::SYNCFS,
            nr::SENDMMSG,
            nr::GETCPU,
            nr::PROCESS_VM_READV,
            nr::PROCESS_VM_WRITEV,
            nr::SCHED_SETATTR,
            nr::SCHED_GETATTR,
            nr::RENAMEAT2,
            nr::SECCOMP,
            nr::GETRANDOM,
            nr::MEMFD_CREATE,
            nr::EXECVEAT,
            nr::MEMBARRIER,
            nr::MLOCK2,
            nr::COPY_FILE_RANGE,
            nr::PREADV2,
            nr::PWRITEV2,
            nr::PKEY_MPROTECT,
            nr::PKEY_ALLOC,
            nr::PKEY_FREE,
            nr::STATX,
            nr::RSEQ,
            nr::URETPROBE,
            nr::PIDFD_SEND_SIGNAL,
            nr::PIDFD_OPEN,
            nr::CLOSE_RANGE,
            nr::OPENAT2,
            nr::FACCESSAT2,
            nr::EPOLL_PWAIT2,
            nr::LANDLOCK_CREATE_RULESET,
            nr::LANDLOCK_ADD_RULE,
            nr::LANDLOCK_RESTRICT_SELF,
            nr::MEMFD_SECRET,
            nr::PROCESS_MRELEASE,
            nr::FUTEX_WAITV,
            nr::CACHESTAT,
            nr::FCHMODAT2,
            nr::MAP_SHADOW_STACK,
            nr::FUTEX_WAKE,
            nr::FUTEX_WAIT,
            nr::FUTEX_REQUEUE,
            nr::STATMOUNT,
            nr::LISTMOUNT,
            nr::MSEAL,
            nr::SETXATTRAT,
            nr::GETXATTRAT,
            nr::LISTXATTRAT,
            nr::REMOVEXATTRAT,
        ],
        needs: &[],
        lacks: &[],
        action: Then::Allow,
    },
    Rule {
        calls: &[nr::SOCKET],
        needs: &[],
        lacks: &[],
        action: Then::If(Condition::OneOf(FAMILIES)),
    },
    Rule {
        calls: &[nr::PERSONALITY],
        needs: &[],
        lacks: &[],
        action: Then::If(Condition::OneOf(&[0, 8, 0x20000, 0x20008, u32::MAX])),
    },
    Rule {
        calls: &[nr::CLONE],
        needs: &[],
        lacks: &["SYS_ADMIN"],
        action: Then::If(Condition::NoneOf(NAMESPACES)),
    },
    Rule {
        calls: &[nr::CLONE3],
        needs: &[],
        lacks: &["SYS_ADMIN"],
        action: Then::NoSys,
    },
    Rule {
        calls: &[nr::OPEN_BY_HANDLE_AT],
        needs: &["DAC_READ_SEARCH"],
        lacks: &[],
        action: Then::Allow,
    },
    Rule {
        calls: &[
            nr::CLONE,
            nr::SYSLOG,
            nr::MOUNT,
            nr::UMOUNT2,
            nr::SETHOSTNAME,
            nr::SETDOMAINNAME,
            nr::QUOTACTL,
            nr::LOOKUP_DCOOKIE,
            nr::UNSHARE,
            nr::PERF_EVENT_OPEN,
            nr::FANOTIFY_INIT,
            nr::SETNS,
            nr::BPF,
            nr::OPEN_TREE,
            nr::MOVE_MOUNT,
            nr::FSOPEN,
            nr::FSCONFIG,
            nr::FSMOUNT,
            nr::FSPICK,
            nr::CLONE3,
            nr::MOUNT_SETATTR,
            nr::QUOTACTL_FD,
            nr::LSM_GET_SELF_ATTR,
            nr::LSM_SET_SELF_ATTR,
            nr::LSM_LIST_MODULES,
        ],
        needs: &["SYS_ADMIN"],
        lacks: &[],
        action: Then::Allow,
    },
    Rule {
        calls: &[nr::REBOOT],
        needs: &["SYS_BOOT"],
        lacks: &[],
        action: Then::Allow,
    },
    Rule {
        calls: &[nr::CHROOT],
        needs: &["SYS_CHROOT"],
        lacks: &[],
        action: Then::Allow,
    },
    Rule {
        calls: &[nr::INIT_MODULE, nr::DELETE_MODULE, nr::FINIT_MODULE],
        needs: &["SYS_MODULE"],
        lacks: &[],
        action: Then::Allow,
    },
    Rule {
        calls: &[nr::ACCT],
        needs: &["SYS_PACCT"],
        lacks: &[],
        action: Then::Allow,
    },
    Rule {
        calls: &[nr::KCMP, nr::PIDFD_GETFD, nr::PROCESS_MADVISE],
        needs: &["SYS_PTRACE"],
        lacks: &[],
        action: Then::Allow,
    },
    Rule {
        calls: &[nr::IOPL, nr::IOPERM],
        needs: &["SYS_RAWIO"],
        lacks: &[],
        action: Then::Allow,
    },
    Rule {
        calls: &[nr::SETTIMEOFDAY, nr::CLOCK_SETTIME],
        needs: &["SYS_TIME"],
        lacks: &[],
        action: Then::Allow,
    },
    Rule {
        calls: &[nr::VHANGUP],
        needs: &["SYS_TTY_CONFIG"],
        lacks: &[],
        action: Then::Allow,
    },
    Rule {
        calls: &[
            nr::MBIND,
            nr::SET_MEMPOLICY,
            nr::GET_MEMPOLICY,
            nr::SET_MEMPOLICY_HOME_NODE,
        ],
        needs: &["SYS_NICE"],
        lacks: &[],
        action: Then::Allow,
    },
    Rule {
        calls: &[nr::SYSLOG],
        needs: &["SYSLOG"],
        lacks: &[],
        action: Then::Allow,
    },
    Rule {
        calls: &[nr::BPF],
        needs: &["BPF"],
        lacks: &[],
        action: Then::Allow,
    },
    Rule {
        calls: &[nr::PERF_EVENT_OPEN],
        needs: &["PERFMON"],
        lacks: &[],
        action: Then::Allow,
    },
];

/// Calls from this number on are newer than these rules.
pub const NEWER: u32 = 467;

/// Calls that only 32-bit x86 has, by the capability they need. What both have is allowed to both alike. (The arguments of
/// `socketcall` lie behind a pointer, so address families are not looked at there, as in Docker.)
#[rustfmt::skip]
pub const I386: &[(&[&str], &str)] = &[
    (
        &[
            "_llseek", "_newselect", "chown32", "clock_adjtime64", "clock_getres_time64", "clock_gettime64",
            "clock_nanosleep_time64", "fadvise64_64", "fchown32", "fcntl64", "fstat64", "fstatat64", "fstatfs64",
            "ftruncate64", "futex_time64", "getegid32", "geteuid32", "getgid32", "getgroups32", "getresgid32",
            "getresuid32", "getuid32", "io_pgetevents_time64", "ipc", "lchown32", "lstat64", "mmap2",
            "mq_timedreceive_time64", "mq_timedsend_time64", "ppoll_time64", "pselect6_time64", "recvmmsg_time64",
            "rt_sigtimedwait_time64", "sched_rr_get_interval_time64", "semtimedop_time64", "sendfile64", "setfsgid32",
            "setfsuid32", "setgid32", "setgroups32", "setregid32", "setresgid32", "setresuid32", "setreuid32",
            "setuid32", "sigprocmask", "sigreturn", "socketcall", "stat64", "statfs64", "timer_gettime64",
            "timer_settime64", "timerfd_gettime64", "timerfd_settime64", "truncate64", "ugetrlimit",
            "utimensat_time64", "waitpid",
        ],
        "",
    ),
    (&["clock_settime64", "stime"], "SYS_TIME"),
    (&["umount"], "SYS_ADMIN"),
];

/// Numbers of system calls.
#[rustfmt::skip]
mod nr {
    pub const READ: u16 = 0; pub const WRITE: u16 = 1; pub const OPEN: u16 = 2;
    pub const CLOSE: u16 = 3; pub const STAT: u16 = 4; pub const FSTAT: u16 = 5;
    pub const LSTAT: u16 = 6; pub const POLL: u16 = 7; pub const LSEEK: u16 = 8;
    pub const MMAP: u16 = 9; pub const MPROTECT: u16 = 10; pub const MUNMAP: u16 = 11;
    pub const BRK: u16 = 12; pub const RT_SIGACTION: u16 = 13; pub const RT_SIGPROCMASK: u16 = 14;
    pub const RT_SIGRETURN: u16 = 15; pub const IOCTL: u16 = 16; pub const PREAD64: u16 = 17;
    pub const PWRITE64: u16 = 18; pub const READV: u16 = 19; pub const WRITEV: u16 = 20;
    pub const ACCESS: u16 = 21; pub const PIPE: u16 = 22; pub const SELECT: u16 = 23;
    pub const SCHED_YIELD: u16 = 24; pub const MREMAP: u16 = 25; pub const MSYNC: u16 = 26;
    pub const MINCORE: u16 = 27; pub const MADVISE: u16 = 28; pub const SHMGET: u16 = 29;
    pub const SHMAT: u16 = 30; pub const SHMCTL: u16 = 31; pub const DUP: u16 = 32;
    pub const DUP2: u16 = 33; pub const PAUSE: u16 = 34; pub const NANOSLEEP: u16 = 35;
    pub const GETITIMER: u16 = 36; pub const ALARM: u16 = 37; pub const SETITIMER: u16 = 38;
    pub const GETPID: u16 = 39; pub const SENDFILE: u16 = 40; pub const SOCKET: u16 = 41;
    pub const CONNECT: u16 = 42; pub const ACCEPT: u16 = 43; pub const SENDTO: u16 = 44;
    pub const RECVFROM: u16 = 45; pub const SENDMSG: u16 = 46; pub const RECVMSG: u16 = 47;
    pub const SHUTDOWN: u16 = 48; pub const BIND: u16 = 49; pub const LISTEN: u16 = 50;
    pub const GETSOCKNAME: u16 = 51; pub const GETPEERNAME: u16 = 52; pub const SOCKETPAIR: u16 = 53;
    pub const SETSOCKOPT: u16 = 54; pub const GETSOCKOPT: u16 = 55; pub const CLONE: u16 = 56;
    pub const FORK: u16 = 57; pub const VFORK: u16 = 58; pub const EXECVE: u16 = 59;
    pub const EXIT: u16 = 60; pub const WAIT4: u16 = 61; pub const KILL: u16 = 62;
    pub const UNAME: u16 = 63; pub const SEMGET: u16 = 64; pub const SEMOP: u16 = 65;
    pub const SEMCTL: u16 = 66; pub const SHMDT: u16 = 67; pub const MSGGET: u16 = 68;
    pub const MSGSND: u16 = 69; pub const MSGRCV: u16 = 70; pub const MSGCTL: u16 = 71;
    pub const FCNTL: u16 = 72; pub const FLOCK: u16 = 73; pub const FSYNC: u16 = 74;
    pub const FDATASYNC: u16 = 75; pub const TRUNCATE: u16 = 76; pub const FTRUNCATE: u16 = 77;
    pub const GETDENTS: u16 = 78; pub const GETCWD: u16 = 79; pub const CHDIR: u16 = 80;
    pub const FCHDIR: u16 = 81; pub const RENAME: u16 = 82; pub const MKDIR: u16 = 83;
    pub const RMDIR: u16 = 84; pub const CREAT: u16 = 85; pub const LINK: u16 = 86;
    pub const UNLINK: u16 = 87; pub const SYMLINK: u16 = 88; pub const READLINK: u16 = 89;
    pub const CHMOD: u16 = 90; pub const FCHMOD: u16 = 91; pub const CHOWN: u16 = 92;
    pub const FCHOWN: u16 = 93; pub const LCHOWN: u16 = 94; pub const UMASK: u16 = 95;
    pub const GETTIMEOFDAY: u16 = 96; pub const GETRLIMIT: u16 = 97; pub const GETRUSAGE: u16 = 98;
    pub const SYSINFO: u16 = 99; pub const TIMES: u16 = 100; pub const PTRACE: u16 = 101;
    pub const GETUID: u16 = 102; pub const SYSLOG: u16 = 103; pub const GETGID: u16 = 104;
    pub const SETUID: u16 = 105; pub const SETGID: u16 = 106; pub const GETEUID: u16 = 107;
    pub const GETEGID: u16 = 108; pub const SETPGID: u16 = 109; pub const GETPPID: u16 = 110;
    pub const GETPGRP: u16 = 111; pub const SETSID: u16 = 112; pub const SETREUID: u16 = 113;
    pub const SETREGID: u16 = 114; pub const GETGROUPS: u16 = 115; pub const SETGROUPS: u16 = 116;
    pub const SETRESUID: u16 = 117; pub const GETRESUID: u16 = 118; pub const SETRESGID: u16 = 119;
    pub const GETRESGID: u16 = 120; pub const GETPGID: u16 = 121; pub const SETFSUID: u16 = 122;
    pub const SETFSGID: u16 = 123; pub const GETSID: u16 = 124; pub const CAPGET: u16 = 125;
    pub const CAPSET: u16 = 126; pub const RT_SIGPENDING: u16 = 127; pub const RT_SIGTIMEDWAIT: u16 = 128;
    pub const RT_SIGQUEUEINFO: u16 = 129; pub const RT_SIGSUSPEND: u16 = 130; pub const SIGALTSTACK: u16 = 131;
    pub const UTIME: u16 = 132; pub const MKNOD: u16 = 133; pub const PERSONALITY: u16 = 135;
    pub const STATFS: u16 = 137; pub const FSTATFS: u16 = 138; pub const GETPRIORITY: u16 = 140;
    pub const SETPRIORITY: u16 = 141; pub const SCHED_SETPARAM: u16 = 142; pub const SCHED_GETPARAM: u16 = 143;
    pub const SCHED_SETSCHEDULER: u16 = 144; pub const SCHED_GETSCHEDULER: u16 = 145; pub const SCHED_GET_PRIORITY_MAX: u16 = 146;
    pub const SCHED_GET_PRIORITY_MIN: u16 = 147; pub const SCHED_RR_GET_INTERVAL: u16 = 148; pub const MLOCK: u16 = 149;
    pub const MUNLOCK: u16 = 150; pub const MLOCKALL: u16 = 151; pub const MUNLOCKALL: u16 = 152;
    pub const VHANGUP: u16 = 153; pub const MODIFY_LDT: u16 = 154; pub const PRCTL: u16 = 157;
    pub const ARCH_PRCTL: u16 = 158; pub const ADJTIMEX: u16 = 159; pub const SETRLIMIT: u16 = 160;
    pub const CHROOT: u16 = 161; pub const SYNC: u16 = 162; pub const ACCT: u16 = 163;
    pub const SETTIMEOFDAY: u16 = 164; pub const MOUNT: u16 = 165; pub const UMOUNT2: u16 = 166;
    pub const REBOOT: u16 = 169; pub const SETHOSTNAME: u16 = 170; pub const SETDOMAINNAME: u16 = 171;
    pub const IOPL: u16 = 172; pub const IOPERM: u16 = 173; pub const INIT_MODULE: u16 = 175;
    pub const DELETE_MODULE: u16 = 176; pub const QUOTACTL: u16 = 179; pub const GETTID: u16 = 186;
    pub const READAHEAD: u16 = 187; pub const SETXATTR: u16 = 188; pub const LSETXATTR: u16 = 189;
    pub const FSETXATTR: u16 = 190; pub const GETXATTR: u16 = 191; pub const LGETXATTR: u16 = 192;
    pub const FGETXATTR: u16 = 193; pub const LISTXATTR: u16 = 194; pub const LLISTXATTR: u16 = 195;
    pub const FLISTXATTR: u16 = 196; pub const REMOVEXATTR: u16 = 197; pub const LREMOVEXATTR: u16 = 198;
    pub const FREMOVEXATTR: u16 = 199; pub const TKILL: u16 = 200; pub const TIME: u16 = 201;
    pub const FUTEX: u16 = 202; pub const SCHED_SETAFFINITY: u16 = 203; pub const SCHED_GETAFFINITY: u16 = 204;
    pub const SET_THREAD_AREA: u16 = 205; pub const IO_SETUP: u16 = 206; pub const IO_DESTROY: u16 = 207;
    pub const IO_GETEVENTS: u16 = 208; pub const IO_SUBMIT: u16 = 209; pub const IO_CANCEL: u16 = 210;
    pub const GET_THREAD_AREA: u16 = 211; pub const LOOKUP_DCOOKIE: u16 = 212; pub const EPOLL_CREATE: u16 = 213;
    pub const EPOLL_CTL_OLD: u16 = 214; pub const EPOLL_WAIT_OLD: u16 = 215; pub const REMAP_FILE_PAGES: u16 = 216;
    pub const GETDENTS64: u16 = 217; pub const SET_TID_ADDRESS: u16 = 218; pub const RESTART_SYSCALL: u16 = 219;
    pub const SEMTIMEDOP: u16 = 220; pub const FADVISE64: u16 = 221; pub const TIMER_CREATE: u16 = 222;
    pub const TIMER_SETTIME: u16 = 223; pub const TIMER_GETTIME: u16 = 224; pub const TIMER_GETOVERRUN: u16 = 225;
    pub const TIMER_DELETE: u16 = 226; pub const CLOCK_SETTIME: u16 = 227; pub const CLOCK_GETTIME: u16 = 228;
    pub const CLOCK_GETRES: u16 = 229; pub const CLOCK_NANOSLEEP: u16 = 230; pub const EXIT_GROUP: u16 = 231;
    pub const EPOLL_WAIT: u16 = 232; pub const EPOLL_CTL: u16 = 233; pub const TGKILL: u16 = 234;
    pub const UTIMES: u16 = 235; pub const MBIND: u16 = 237; pub const SET_MEMPOLICY: u16 = 238;
    pub const GET_MEMPOLICY: u16 = 239; pub const MQ_OPEN: u16 = 240; pub const MQ_UNLINK: u16 = 241;
    pub const MQ_TIMEDSEND: u16 = 242; pub const MQ_TIMEDRECEIVE: u16 = 243; pub const MQ_NOTIFY: u16 = 244;
    pub const MQ_GETSETATTR: u16 = 245; pub const WAITID: u16 = 247; pub const IOPRIO_SET: u16 = 251;
    pub const IOPRIO_GET: u16 = 252; pub const INOTIFY_INIT: u16 = 253; pub const INOTIFY_ADD_WATCH: u16 = 254;
    pub const INOTIFY_RM_WATCH: u16 = 255; pub const OPENAT: u16 = 257; pub const MKDIRAT: u16 = 258;
    pub const MKNODAT: u16 = 259; pub const FCHOWNAT: u16 = 260; pub const FUTIMESAT: u16 = 261;
    pub const NEWFSTATAT: u16 = 262; pub const UNLINKAT: u16 = 263; pub const RENAMEAT: u16 = 264;
    pub const LINKAT: u16 = 265; pub const SYMLINKAT: u16 = 266; pub const READLINKAT: u16 = 267;
    pub const FCHMODAT: u16 = 268; pub const FACCESSAT: u16 = 269; pub const PSELECT6: u16 = 270;
    pub const PPOLL: u16 = 271; pub const UNSHARE: u16 = 272; pub const SET_ROBUST_LIST: u16 = 273;
    pub const GET_ROBUST_LIST: u16 = 274; pub const SPLICE: u16 = 275; pub const TEE: u16 = 276;
    pub const SYNC_FILE_RANGE: u16 = 277; pub const VMSPLICE: u16 = 278; pub const UTIMENSAT: u16 = 280;
    pub const EPOLL_PWAIT: u16 = 281; pub const SIGNALFD: u16 = 282; pub const TIMERFD_CREATE: u16 = 283;
    pub const EVENTFD: u16 = 284; pub const FALLOCATE: u16 = 285; pub const TIMERFD_SETTIME: u16 = 286;
    pub const TIMERFD_GETTIME: u16 = 287; pub const ACCEPT4: u16 = 288; pub const SIGNALFD4: u16 = 289;
    pub const EVENTFD2: u16 = 290; pub const EPOLL_CREATE1: u16 = 291; pub const DUP3: u16 = 292;
    pub const PIPE2: u16 = 293; pub const INOTIFY_INIT1: u16 = 294; pub const PREADV: u16 = 295;
    pub const PWRITEV: u16 = 296; pub const RT_TGSIGQUEUEINFO: u16 = 297; pub const PERF_EVENT_OPEN: u16 = 298;
    pub const RECVMMSG: u16 = 299; pub const FANOTIFY_INIT: u16 = 300; pub const FANOTIFY_MARK: u16 = 301;
    pub const PRLIMIT64: u16 = 302; pub const NAME_TO_HANDLE_AT: u16 = 303; pub const OPEN_BY_HANDLE_AT: u16 = 304;
    pub const CLOCK_ADJTIME: u16 = 305; pub const SYNCFS: u16 = 306; pub const SENDMMSG: u16 = 307;
    pub const SETNS: u16 = 308; pub const GETCPU: u16 = 309; pub const PROCESS_VM_READV: u16 = 310;
    pub const PROCESS_VM_WRITEV: u16 = 311; pub const KCMP: u16 = 312; pub const FINIT_MODULE: u16 = 313;
    pub const SCHED_SETATTR: u16 = 314; pub const SCHED_GETATTR: u16 = 315; pub const RENAMEAT2: u16 = 316;
    pub const SECCOMP: u16 = 317; pub const GETRANDOM: u16 = 318; pub const MEMFD_CREATE: u16 = 319;
    pub const BPF: u16 = 321; pub const EXECVEAT: u16 = 322; pub const MEMBARRIER: u16 = 324;
    pub const MLOCK2: u16 = 325; pub const COPY_FILE_RANGE: u16 = 326; pub const PREADV2: u16 = 327;
    pub const PWRITEV2: u16 = 328; pub const PKEY_MPROTECT: u16 = 329; pub const PKEY_ALLOC: u16 = 330;
    pub const PKEY_FREE: u16 = 331; pub const STATX: u16 = 332; pub const IO_PGETEVENTS: u16 = 333;
    pub const RSEQ: u16 = 334; pub const URETPROBE: u16 = 335; pub const PIDFD_SEND_SIGNAL: u16 = 424;
    pub const OPEN_TREE: u16 = 428; pub const MOVE_MOUNT: u16 = 429; pub const FSOPEN: u16 = 430;
    pub const FSCONFIG: u16 = 431; pub const FSMOUNT: u16 = 432; pub const FSPICK: u16 = 433;
    pub const PIDFD_OPEN: u16 = 434; pub const CLONE3: u16 = 435; pub const CLOSE_RANGE: u16 = 436;
    pub const OPENAT2: u16 = 437; pub const PIDFD_GETFD: u16 = 438; pub const FACCESSAT2: u16 = 439;
    pub const PROCESS_MADVISE: u16 = 440; pub const EPOLL_PWAIT2: u16 = 441; pub const MOUNT_SETATTR: u16 = 442;
    pub const QUOTACTL_FD: u16 = 443; pub const LANDLOCK_CREATE_RULESET: u16 = 444; pub const LANDLOCK_ADD_RULE: u16 = 445;
    pub const LANDLOCK_RESTRICT_SELF: u16 = 446; pub const MEMFD_SECRET: u16 = 447; pub const PROCESS_MRELEASE: u16 = 448;
    pub const FUTEX_WAITV: u16 = 449; pub const SET_MEMPOLICY_HOME_NODE: u16 = 450; pub const CACHESTAT: u16 = 451;
    pub const FCHMODAT2: u16 = 452; pub const MAP_SHADOW_STACK: u16 = 453; pub const FUTEX_WAKE: u16 = 454;
    pub const FUTEX_WAIT: u16 = 455; pub const FUTEX_REQUEUE: u16 = 456; pub const STATMOUNT: u16 = 457;
    pub const LISTMOUNT: u16 = 458; pub const LSM_GET_SELF_ATTR: u16 = 459; pub const LSM_SET_SELF_ATTR: u16 = 460;
    pub const LSM_LIST_MODULES: u16 = 461; pub const MSEAL: u16 = 462; pub const SETXATTRAT: u16 = 463;
    pub const GETXATTRAT: u16 = 464; pub const LISTXATTRAT: u16 = 465; pub const REMOVEXATTRAT: u16 = 466;
}
