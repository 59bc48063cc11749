# The programs of `make bench`. Included by the Makefile, whose variables these rules use.

BENCH_PROGRAMS = $(addprefix build/bench/,floor ask follow libfcgi views tokens)
BENCH_LINK     = $(CC) $(CPPFLAGS) $(CFLAGS) $(PKG_CFLAGS) $(LDFLAGS) -o $@ $(filter %.c %.o,$^)

$(BENCH_PROGRAMS): build/bench/%: tests/bench/%.c
	@mkdir -p $(@D)
	@echo '  LD   $@'
	@$(BENCH_LINK) $(LIBS)

# All objects except main.o: the floor uses the same FastCGI server as taskproxy.
build/bench/floor build/bench/views build/bench/tokens: $(filter-out build/main.o,$(OBJECTS))
build/bench/ask build/bench/follow: tests/bench/client.c tests/bench/client.h
