/* given: a set of files in memory, as a worker gets it from its master. */
#ifndef GIVEN_H
#define GIVEN_H

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/files.h"

struct given {
    const char *path;
    const char *text;
    size_t len; /* 0: up to the NUL */
};

static inline struct files *given_files(const struct given *given, size_t n)
{
    int fd = memfd_create("given", MFD_CLOEXEC);
    dprintf(fd, "taskproxy files 1\n");
    for (size_t i = 0; i < n; i++) {
        size_t len = given[i].len > 0 ? given[i].len : strlen(given[i].text);
        dprintf(fd, "%d %zu %s\n", (int)FILE_PLAIN, len, given[i].path);
        if (write_full(fd, given[i].text, len) < 0)
            break;
    }
    struct files *files = files_unseal(fd);
    close(fd);
    return files;
}

#endif
