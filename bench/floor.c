// The floor: what the kernel alone asks for a container. Clones a process with all namespaces but the user's, puts it
// into a control group of every hierarchy, mounts an overlay on a given root, pivots into it, executes a program,
// waits, and cleans up. No images, no network, no daemon, no checks: nothing can be cheaper and still be a container.
//
//   floor ROOTFS WORKDIR PROGRAM [ARGUMENT...]
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define STACK (256 * 1024)
#define GROUPS 16

static char merged[PATH_MAX];
static char **command;
static int go[2];

static void die(const char *what) {
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(125);
}

static void must(int result, const char *what) {
    if (result < 0) die(what);
}

// In the new namespaces.
static int inside(void *unused) {
    (void)unused;
    char byte;
    close(go[1]);
    if (read(go[0], &byte, 1) != 1) return 125;
    must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "make / private");
    must(mount(merged, merged, NULL, MS_BIND | MS_REC, NULL), "bind");
    must(chdir(merged), "chdir");
    must(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), "mount /proc");
    must(mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755,size=64k"), "mount /dev");
    must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    must(umount2(".", MNT_DETACH), "detach the old root");
    must(sethostname("floor", 5), "sethostname");
    execv(command[0], command);
    die(command[0]);
    return 125;
}

// Control groups: every v1 hierarchy, or the one of v2.
static char groups[GROUPS][PATH_MAX];
static int group_count;

static void find_groups(void) {
    FILE *mounts = fopen("/proc/self/mounts", "r");
    char device[256], target[PATH_MAX - 64], kind[64];
    if (!mounts) die("/proc/self/mounts");
    while (fscanf(mounts, "%255s %4031s %63s %*[^\n]", device, target, kind) == 3 && group_count < GROUPS)
        if (strcmp(kind, "cgroup") == 0 || strcmp(kind, "cgroup2") == 0)
            snprintf(groups[group_count++], PATH_MAX, "%s/floor-%d", target, getpid());
    fclose(mounts);
}

static void write_file(const char *dir, const char *name, const char *text) {
    char path[PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0) return;
    if (write(file, text, strlen(text)) < 0 && errno != ENOSPC) perror(path);
    close(file);
}

static void copy_cpuset(const char *dir, const char *name) {
    char path[PATH_MAX + 64], text[4096];
    snprintf(path, sizeof path, "%s/../%s", dir, name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    ssize_t size = read(file, text, sizeof text - 1);
    close(file);
    if (size > 0) {
        text[size] = 0;
        write_file(dir, name, text);
    }
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: floor ROOTFS WORKDIR PROGRAM [ARGUMENT...]\n");
        return 125;
    }
    command = argv + 3;
    char base[PATH_MAX - 64], upper[PATH_MAX], work[PATH_MAX], options[4 * PATH_MAX], inner[PATH_MAX + 16], pid_text[16];
    snprintf(base, sizeof base, "%s/floor-%d", argv[2], getpid());
    snprintf(upper, sizeof upper, "%s/upper", base);
    snprintf(work, sizeof work, "%s/work", base);
    snprintf(merged, sizeof merged, "%s/merged", base);
    must(mkdir(base, 0755), base);
    must(mkdir(upper, 0755), upper);
    must(mkdir(work, 0755), work);
    must(mkdir(merged, 0755), merged);
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s", argv[1], upper, work);
    must(mount("overlay", merged, "overlay", 0, options), "mount overlay");

    find_groups();
    for (int i = 0; i < group_count; i++) must(mkdir(groups[i], 0755), groups[i]);

    must(pipe2(go, O_CLOEXEC), "pipe");
    char *stack = malloc(STACK);
    if (!stack) die("malloc");
    int flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP | SIGCHLD;
    pid_t child = clone(inside, stack + STACK, flags, NULL);
    must(child, "clone");
    close(go[0]);
    snprintf(pid_text, sizeof pid_text, "%d", child);
    for (int i = 0; i < group_count; i++) {
        if (strstr(groups[i], "/cpuset/")) {
            copy_cpuset(groups[i], "cpuset.cpus");
            copy_cpuset(groups[i], "cpuset.mems");
        }
        write_file(groups[i], "cgroup.procs", pid_text);
    }
    must(write(go[1], "x", 1), "start");
    int status = 0;
    must(waitpid(child, &status, 0), "waitpid");

    for (int i = 0; i < group_count; i++) must(rmdir(groups[i]), groups[i]);
    must(umount2(merged, MNT_DETACH), "umount overlay");
    // The kernel leaves a directory of its own in the work directory.
    snprintf(inner, sizeof inner, "%s/work", work);
    rmdir(inner);
    rmdir(work);
    rmdir(merged);
    rmdir(upper);
    must(rmdir(base), base);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
