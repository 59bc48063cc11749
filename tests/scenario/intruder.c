/* intruder: operations that an attacker in a worker would try. Loaded into the daemon with LD_PRELOAD, it runs one
 * operation in the worker for each real-time signal, and prints the result to standard error. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define NELEMS(array) (sizeof(array) / sizeof((array)[0]))

static long as_status(long result)
{
    return result < 0 ? -1 : 0;
}

static long read_a_file(void)
{
    return as_status(open("/etc/hosts", O_RDONLY));
}

static long read_a_program(void)
{
    return as_status(open("/bin/true", O_RDONLY));
}

static long list_a_folder(void)
{
    return as_status(open("/tmp", O_RDONLY | O_DIRECTORY));
}

/* If the system call is available, it fails with another error for these arguments. */
static long make_a_ring(void)
{
    return syscall(SYS_io_uring_setup, 0, NULL);
}

static long use_a_ring(void)
{
    return syscall(SYS_io_uring_enter, -1, 0, 0, 0, NULL, 0);
}

static void *do_nothing(void *nothing)
{
    return nothing;
}

static long start_a_thread(void)
{
    pthread_t thread;
    errno = pthread_create(&thread, NULL, do_nothing, NULL);
    return errno != 0 ? -1 : pthread_join(thread, NULL);
}

static long start_a_process(void)
{
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    return as_status(child);
}

static long run_a_shell(void)
{
    return system("true");
}

static long write_a_file(void)
{
    return as_status(open("intruded", O_WRONLY | O_CREAT, 0600));
}

static long write_to_a_device(void)
{
    return as_status(open("/dev/null", O_RDWR));
}

static long remove_a_file(void)
{
    return unlink("intruded");
}

static long make_a_folder(void)
{
    return mkdir("intruded", 0700);
}

static long run_what_was_written(void)
{
    void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return mprotect(memory, 4096, PROT_READ | PROT_EXEC);
}

static long write_what_runs(void)
{
    return mmap(NULL, 4096, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1
                                                                                                      : 0;
}

static long listen_to_the_network(void)
{
    return as_status(socket(AF_PACKET, SOCK_RAW, 0));
}

static long serve_on_a_port(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in any_port = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    if (fd < 0 || bind(fd, (const struct sockaddr *)&any_port, sizeof(any_port)) < 0)
        return 0; /* that much is allowed */
    return listen(fd, 1);
}

static long signal_the_master(void)
{
    return kill(getppid(), 0);
}

static long allow_core_files(void)
{
    const struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
    return setrlimit(RLIMIT_CORE, &all);
}

static long become_dumpable(void)
{
    return prctl(PR_SET_DUMPABLE, 1);
}

static long exec_a_program(void)
{
    return execl("/bin/true", "true", NULL);
}

static long trace_the_master(void)
{
    return ptrace(PTRACE_ATTACH, getppid(), NULL, NULL);
}

static long leave_the_namespace(void)
{
    return unshare(CLONE_NEWUSER);
}

static const struct {
    const char *name;
    long (*make)(void);
} attempts[] = {
#define ATTEMPT(name)                                                                                        \
    {                                                                                                        \
#name, name                                                                                          \
    }
    ATTEMPT(read_a_file),           ATTEMPT(read_a_program),
    ATTEMPT(list_a_folder),         ATTEMPT(start_a_thread),
    ATTEMPT(start_a_process),       ATTEMPT(run_a_shell),
    ATTEMPT(write_a_file),          ATTEMPT(write_to_a_device),
    ATTEMPT(remove_a_file),         ATTEMPT(make_a_folder),
    ATTEMPT(run_what_was_written),  ATTEMPT(write_what_runs),
    ATTEMPT(listen_to_the_network), ATTEMPT(serve_on_a_port),
    ATTEMPT(signal_the_master),     ATTEMPT(allow_core_files),
    ATTEMPT(become_dumpable),       ATTEMPT(exec_a_program),
    ATTEMPT(trace_the_master),      ATTEMPT(leave_the_namespace),
    ATTEMPT(make_a_ring),           ATTEMPT(use_a_ring)};

static void on_signal(int number)
{
    size_t i = (size_t)(number - SIGRTMIN);
    dprintf(STDERR_FILENO, "intruder: tries to %s\n", attempts[i].name);
    const char *end = attempts[i].make() == 0 ? "done" : strerror(errno);
    dprintf(STDERR_FILENO, "intruder: %s: %s\n", attempts[i].name, end);
}

__attribute__((constructor)) static void lie_in_wait(void)
{
    for (size_t i = 0; i < NELEMS(attempts); i++)
        signal(SIGRTMIN + (int)i, on_signal);
}
