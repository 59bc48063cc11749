/* libfcgi: holds requests with libfcgi alone, to measure its memory. It listens on SOCKET, accepts COUNT requests
 * with FCGX_Accept_r, answers none of them, prints a line, and exits when its standard input ends.
 *
 *     libfcgi SOCKET COUNT */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>

#include <fcgiapp.h>

enum { BACKLOG = 4096 };

int main(int argc, char **argv)
{
    if (argc != 3)
        errx(EXIT_FAILURE, "usage: libfcgi SOCKET COUNT");
    int listening = FCGX_Init() == 0 ? FCGX_OpenSocket(argv[1], BACKLOG) : -1;
    if (listening < 0)
        errx(EXIT_FAILURE, "%s", argv[1]);
    puts("listening");
    fflush(stdout);
    for (int left = atoi(argv[2]); left > 0; left--) {
        FCGX_Request *request = malloc(sizeof(*request)); /* held to the end */
        if (request == NULL || FCGX_InitRequest(request, listening, 0) != 0 || FCGX_Accept_r(request) < 0)
            errx(EXIT_FAILURE, "%d requests could not be taken", left);
    }
    puts("all held");
    fflush(stdout);
    getchar();
    return EXIT_SUCCESS;
}
