# ruff: noqa: E501, as Chinese letters count twice
"""The order in which emoji enter the world: the first ones are things that look least like each other.

Each entry is (symbol, English, Chinese): short names of one word, in place of Unicode's longer ones ("dog face").
What is not listed here follows under its own name: single things, then symbols, faces, people, flags.
"""

_ENTRIES = """
🐶 dog 狗|🐱 cat 猫|🍎 apple 苹果|🍌 banana 香蕉|🚗 car 汽车|🌳 tree 树|☀️ sun 太阳|🐸 frog 青蛙
🐼 panda 熊猫|🐷 pig 猪|🍇 grape 葡萄|🥕 carrot 胡萝卜|🍕 pizza 披萨|⚽ football 足球|🚀 rocket 火箭|🏠 house 房子
🎈 balloon 气球|🌵 cactus 仙人掌|🍄 mushroom 蘑菇|👑 crown 皇冠|🐳 whale 鲸鱼|🎁 gift 礼物|🔑 key 钥匙|🌹 rose 玫瑰
🦋 butterfly 蝴蝶|🍔 burger 汉堡|🤖 robot 机器人|🌻 sunflower 向日葵|🐙 octopus 章鱼|🎸 guitar 吉他|🚌 bus 公交车|🍉 watermelon 西瓜
⭐ star 星星|❤️ heart 红心|🐟 fish 鱼|🐝 bee 蜜蜂|🦁 lion 狮子|🐧 penguin 企鹅|🏀 basketball 篮球|🔔 bell 铃铛
☂️ umbrella 伞|🐘 elephant 大象|🍓 strawberry 草莓|🍍 pineapple 菠萝|🌈 rainbow 彩虹|🚲 bicycle 自行车|✈️ airplane 飞机|🐢 turtle 乌龟
🦆 duck 鸭子|🥑 avocado 鳄梨|🍆 eggplant 茄子|🍋 lemon 柠檬|🥦 broccoli 西兰花|🌽 corn 玉米|🍩 doughnut 甜甜圈|🎂 cake 蛋糕
🚂 locomotive 火车头|⚓ anchor 锚|🔨 hammer 锤子|📷 camera 相机|🥁 drum 鼓|🐞 ladybug 瓢虫|🐰 rabbit 兔子|🐵 monkey 猴子
👻 ghost 鬼|🐻 bear 熊|🐨 koala 考拉|🐔 chicken 鸡|🦉 owl 猫头鹰|🦊 fox 狐狸|🐮 cow 奶牛|🐭 mouse 老鼠
🐴 horse 马|🐍 snake 蛇|🦀 crab 螃蟹|🐌 snail 蜗牛|🦒 giraffe 长颈鹿|🦓 zebra 斑马|🐬 dolphin 海豚|🦈 shark 鲨鱼
🍐 pear 梨|🍒 cherry 樱桃|🍑 peach 桃|🥥 coconut 椰子|🥝 kiwi 猕猴桃|🍅 tomato 西红柿|🥔 potato 土豆|🥒 cucumber 黄瓜
🥚 egg 蛋|🍞 bread 面包|🧀 cheese 奶酪|🥨 pretzel 椒盐卷饼|🌭 hotdog 热狗|🌮 taco 墨西哥卷饼|🍟 fries 薯条|🍿 popcorn 爆米花
🍪 cookie 饼干|🍭 lollipop 棒棒糖|☕ coffee 咖啡|🫖 teapot 茶壶|🚒 firetruck 消防车|🚜 tractor 拖拉机|🚁 helicopter 直升机|⛵ sailboat 帆船
🚢 ship 轮船|🏰 castle 城堡|⛺ tent 帐篷|🌋 volcano 火山|🌙 moon 月亮|☁️ cloud 云|❄️ snowflake 雪花|🔥 fire 火焰
💧 droplet 水滴|🌷 tulip 郁金香|🍁 maple 枫叶|🍀 clover 四叶草|🎾 tennis 网球|🏈 rugby 橄榄球|🎯 target 靶子|🎲 die 骰子
🎻 violin 小提琴|🎺 trumpet 小号|🎤 microphone 麦克风|🎧 headphone 耳机|📺 television 电视机|💻 laptop 笔记本电脑|☎️ telephone 电话|💡 lamp 灯泡
🕯️ candle 蜡烛|📚 books 书|✏️ pencil 铅笔|✂️ scissors 剪刀|🔒 lock 锁|🧲 magnet 磁铁|🔭 telescope 望远镜|🧭 compass 指南针
👓 glasses 眼镜|👕 shirt T恤|👖 jeans 牛仔裤|👗 dress 连衣裙|🧦 socks 袜子|👟 shoe 运动鞋|🎩 hat 礼帽|🎒 backpack 书包
💍 ring 戒指|💎 diamond 钻石|🏆 trophy 奖杯|⚙️ gear 齿轮|🪑 chair 椅子|🚪 door 门|🛁 bathtub 浴缸|🧸 teddy 玩具熊
💀 skull 头骨|👽 alien 外星人|🎃 pumpkin 南瓜灯|⛄ snowman 雪人|🦄 unicorn 独角兽|🐉 dragon 龙|🦖 dinosaur 霸王龙|🐊 crocodile 鳄鱼
"""
CURATED = [tuple(entry.split(" ")) for line in _ENTRIES.split("\n") if line for entry in line.split("|")]

# Names of Unicode that a curated emoji has taken, for the emoji that they belong to.
RENAMED = {
    "🐕": ("standing dog", "站立的狗"), "🐈": ("standing cat", "站立的猫"), "🐖": ("standing pig", "站立的猪"),
    "🐇": ("sitting rabbit", "蹲着的兔子"), "🐒": ("sitting monkey", "坐着的猴子"), "🐄": ("standing cow", "站立的奶牛"),
    "🐁": ("running mouse", "跑动的老鼠"), "🐎": ("running horse", "奔跑的马"), "🐋": ("long whale", "长鲸鱼"),
    "☃️": ("snowman in snow", "雪中雪人"),
}  # fmt: skip
