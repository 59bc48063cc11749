# The programs of `make bench`. Included by the Makefile, whose variables these rules use.

BENCH_PROGRAMS = build/bench/floor build/bench/ask build/bench/views

# All objects but main's: the floor stands on the very edge that taskproxy stands on.
build/bench/floor: tests/bench/floor.c $(filter-out build/main.o,$(OBJECTS))
	@mkdir -p $(@D)
	@echo '  LD   $@'
	@$(CC) $(CPPFLAGS) $(CFLAGS) $(PKG_CFLAGS) -Ifcgi $(LDFLAGS) -o $@ $^ $(LIBS)

build/bench/ask: tests/bench/ask.c
	@mkdir -p $(@D)
	@echo '  LD   $@'
	@$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^

build/bench/views: tests/bench/views.c $(filter-out build/main.o,$(OBJECTS))
	@mkdir -p $(@D)
	@echo '  LD   $@'
	@$(CC) $(CPPFLAGS) $(CFLAGS) $(PKG_CFLAGS) -Ifcgi $(LDFLAGS) -o $@ $^ $(LIBS)
